/** What api asks of the broker about its clients. */
export interface BrokerSessions {
  /**
   * Ends the connection and the session of a client. One that is not there is a success. It is a cut, not a lock: the
   * client is back within milliseconds, and what the authorizers say then decides.
   * @throws DomainError `broker_unavailable`
   */
  kick(clientId: string): Promise<void>
}

/** The clients of people. */
export interface PersonClients {
  /**
   * Client ids of a person's sessions, connected or kept for later.
   * @throws DomainError `broker_unavailable`
   */
  clientsOf(email: string): Promise<string[]>
}
