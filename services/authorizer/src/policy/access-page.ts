import { type AccessClass, type Permission, POLICY } from './policy'

/** docs/access.md: the policy as a person reads it. */
export function accessPage(): string {
  return `# Who may do what on MQTT

This page is generated from \`services/authorizer/src/policy/policy.ts\` (\`npm run generate\`); a test fails when it is out of
date. Whatever is not in a table is denied.

- Each class comes in by its own listener of the broker (zone). A device on the services' listener is refused, and so on.
- The certificate says who it is, the client id must agree with it. A client id alone gives nothing.
- A subscription is allowed when **every** topic that its filter can match is allowed: \`ares4/x/commands/#\` is not within
  \`ares4/x/commands/+\`. *Exactly* means this filter and no other. The broker takes \`$share/{group}/\` off before it asks.
- A denied action ends the connection (\`deny_action = disconnect\`).
- The connection ends when the certificate or the access token does.
${Object.values(POLICY).map(section).join('')}`
}

/** Where the page is kept, from the repository's root. */
export const ACCESS_PAGE = 'docs/access.md'

function section(access: AccessClass): string {
  const forPeople = access.permissions.some((permission) => permission.role)
  const columns = ['may', 'topic', 'QoS', 'retain', ...(forPeople ? ['least role'] : []), 'what for']
  const rows = access.permissions.map((permission) => [
    permission.action,
    `${permission.match === 'exact' ? 'exactly ' : ''}\`${permission.topic}\``,
    permission.qos.join(', '),
    retain(permission),
    ...(forPeople ? [permission.role ?? ''] : []),
    permission.why,
  ])
  const table = [columns, columns.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
  return `
## ${access.title}

Zone \`${access.zone}\`. Shows who it is by: ${access.identity}. Client id: ${access.clientId}.

${table}
`
}

function retain({ action, retain }: Permission): string {
  if (action === 'subscribe') return ''
  return retain === undefined ? 'either' : retain ? 'only' : 'no'
}
