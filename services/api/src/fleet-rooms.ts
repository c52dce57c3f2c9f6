import type { ApiContext } from './context'
import { type BrokerClients, BrokerFindings } from './features/fleet/broker-findings'
import { CaFindings } from './features/fleet/ca-findings'
import { CertificateFindings } from './features/fleet/certificate-findings'
import type { FindingSource } from './features/fleet/findings'
import { fleetRoutes } from './features/fleet/fleet.routes'
import { FleetService } from './features/fleet/fleet.service'
import { FleetStore } from './features/fleet/fleet.store'
import { SharingFindings } from './features/fleet/sharing-findings'
import { OrganizationStore } from './features/identity/organizations.store'
import type { Rooms } from './rooms'

/** The room of the fleet doctor. It only looks; what it finds is for people to do. */
export function fleetRooms(
  { database: { pool, prisma }, logger }: ApiContext,
  given: {
    readonly broker: BrokerClients
    readonly caPem: () => string
    /** What other rooms know to be wrong. */
    readonly sources?: readonly FindingSource[]
  },
): Rooms {
  const store = new FleetStore(pool)
  const sources = [
    new CertificateFindings(store),
    new SharingFindings(store),
    new BrokerFindings(store, given.broker),
    new CaFindings(given.caPem),
    ...(given.sources ?? []),
  ]
  const organizations = new OrganizationStore(prisma)
  const memberships = (userId: string) => organizations.rolesOf(userId)
  return {
    routes: fleetRoutes(new FleetService(sources, memberships, logger)),
    rpc: [],
    allow: {},
    async start() {},
    async stop() {},
  }
}
