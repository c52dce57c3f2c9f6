import { defineRoute, type Route, scoped } from '../../http/route'
import { command, commandHeaders, commandPage, commandQuery, newCommand } from './commands.schema'
import type { CommandService } from './commands.service'

export const commandRoutes = (service: CommandService): Route[] => [
  defineRoute({
    method: 'post',
    path: '/devices/{deviceId}/commands',
    tag: 'commands',
    summary: 'Tells a device to do something.',
    description: 'Answers when the broker has the command, or with state `pending` when the device is not connected.',
    access: scoped('device', 'deviceId', 'operator'),
    headers: commandHeaders,
    body: newCommand,
    answer: { status: 201, body: command, description: 'The command as it stands.' },
    problems: {
      device_disabled: 'The device is switched off.',
      idempotency_key_reused: 'The Idempotency-Key came with another command before.',
    },
    handle: ({ actor, organizationId, params, headers, body }) =>
      service.command(actor, organizationId, params.deviceId, body, headers['idempotency-key']),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/commands',
    tag: 'commands',
    summary: 'Lists the commands of a device, the newest first.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: commandQuery,
    answer: { status: 200, body: commandPage, description: 'A page of commands.' },
    handle: ({ params, query }) => service.list(params.deviceId, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/commands/{commandId}',
    tag: 'commands',
    summary: 'Reads one command: how far it is, and what the device answered.',
    access: scoped('device', 'deviceId', 'viewer'),
    answer: { status: 200, body: command, description: 'The command.' },
    problems: { command_not_found: 'The device has no such command.' },
    handle: ({ params }) => service.get(params.deviceId, params.commandId),
  }),
]
