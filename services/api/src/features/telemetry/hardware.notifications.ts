import type { Notifications } from '../../database/notifications'
import type { HardwareCache } from './hardware.cache'

/** Keeps the cache right: every replica of api hears of each change (see the triggers in the migration). */
export function followHardware(cache: HardwareCache, notifications: Notifications): void {
  notifications.on('ares_hardware', (payload) => cache.remove(payload === '*' ? undefined : payload))
  notifications.onGap(() => cache.setNotified(notifications.connected))
  cache.setNotified(notifications.connected)
}
