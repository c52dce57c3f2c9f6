export { checkedConf } from './conf/broker-conf'
export { loadConf } from './conf/conf-file'
export { type EmbeddedBroker, type EmbeddedBrokerOptions, startEmbeddedBroker } from './embedded-broker'
export type { BrokerLogger } from './logger'
