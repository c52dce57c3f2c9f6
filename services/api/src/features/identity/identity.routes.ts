import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import { label, pageOf, pageQuery } from '../../http/shapes'
import {
  credentials,
  member,
  newMember,
  newOrganization,
  newPassword,
  organization,
  organizationChange,
  ownOrganization,
  role,
  session,
  user,
} from './identity.schema'
import type { OrganizationService } from './organizations.service'
import type { SessionService } from './sessions.service'
import type { UserService } from './users.service'

export interface IdentityServices {
  readonly sessions: SessionService
  readonly users: UserService
  readonly organizations: OrganizationService
}

export function identityRoutes({ sessions, users, organizations }: IdentityServices): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/sessions',
      tag: 'sessions',
      summary: 'Logs in.',
      access: 'public',
      body: credentials,
      answer: { status: 201, body: session, description: 'Logged in.' },
      problems: {
        login_failed: 'e-mail and password do not fit, or the account is switched off',
        too_many_attempts: 'wait for Retry-After seconds',
      },
      handle: ({ body, address }) => sessions.login(body.email, body.password, address),
    }),
    defineRoute({
      method: 'post',
      path: '/sessions/refresh',
      tag: 'sessions',
      summary: 'Exchanges a refresh token for a new access token and a new refresh token.',
      access: 'public',
      body: z.object({ refreshToken: z.string().min(1).max(256) }),
      answer: { status: 201, body: session, description: 'The new pair; the old refresh token is used up.' },
      problems: { refresh_token_reused: 'it was used before: the session is ended for everybody who holds it' },
      handle: ({ body, address }) => sessions.refresh(body.refreshToken, address),
    }),
    defineRoute({
      method: 'delete',
      path: '/sessions/current',
      tag: 'sessions',
      summary: 'Logs out: the session cannot be refreshed any more.',
      access: 'signed-in',
      answer: { status: 204, description: 'Ended.' },
      handle: async ({ actor }) => {
        await sessions.end(actor)
        return undefined
      },
    }),
    defineRoute({
      method: 'get',
      path: '/users/me',
      tag: 'users',
      summary: 'Who is logged in.',
      access: 'signed-in',
      answer: { status: 200, body: user, description: 'The person.' },
      handle: ({ actor }) => users.get(actor.id),
    }),
    defineRoute({
      method: 'patch',
      path: '/users/me',
      tag: 'users',
      summary: 'Changes the own name or password. A new password ends every session.',
      access: 'signed-in',
      body: z.object({
        name: label().nullable().optional(),
        password: z.object({ current: z.string().max(256), next: newPassword }).optional(),
      }),
      answer: { status: 200, body: user, description: 'The person as it is now.' },
      handle: ({ actor, body }) => users.changeOwn(actor, body),
    }),
    defineRoute({
      method: 'post',
      path: '/organizations',
      tag: 'organizations',
      summary: 'Makes an organization; its maker is its owner.',
      access: 'signed-in',
      body: newOrganization,
      answer: { status: 201, body: ownOrganization, description: 'Made.' },
      handle: ({ actor, body }) => organizations.create(actor, body.name),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations',
      tag: 'organizations',
      summary: 'The organizations one is a member of.',
      access: 'signed-in',
      query: pageQuery(),
      answer: { status: 200, body: pageOf(ownOrganization), description: 'A page, oldest first.' },
      handle: ({ actor, query }) => organizations.listOf(actor.id, query),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}',
      tag: 'organizations',
      summary: 'One organization.',
      access: scoped('organization', 'organizationId', 'viewer'),
      answer: { status: 200, body: organization, description: 'The organization.' },
      handle: ({ organizationId }) => organizations.get(organizationId),
    }),
    defineRoute({
      method: 'patch',
      path: '/organizations/{organizationId}',
      tag: 'organizations',
      summary: 'Changes the name or how long telemetry is kept.',
      access: scoped('organization', 'organizationId', 'owner'),
      body: organizationChange,
      answer: { status: 200, body: organization, description: 'The organization as it is now.' },
      handle: ({ actor, organizationId, body }) => organizations.change(actor, organizationId, body),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/members',
      tag: 'organizations',
      summary: 'The members with their roles.',
      access: scoped('organization', 'organizationId', 'viewer'),
      answer: { status: 200, body: z.object({ items: z.array(member) }), description: 'All members.' },
      handle: async ({ organizationId }) => ({ items: await organizations.members(organizationId) }),
    }),
    defineRoute({
      method: 'post',
      path: '/organizations/{organizationId}/members',
      tag: 'organizations',
      summary: 'Adds a member by e-mail, with a new account if need be.',
      access: scoped('organization', 'organizationId', 'owner'),
      body: newMember,
      answer: { status: 201, body: member, description: 'Added.' },
      problems: {
        user_unknown: 'no such account, and no password to make one',
        already_member: 'change the role instead',
      },
      handle: ({ actor, organizationId, body }) => organizations.addMember(actor, organizationId, body),
    }),
    defineRoute({
      method: 'patch',
      path: '/organizations/{organizationId}/members/{userId}',
      tag: 'organizations',
      summary: 'Changes the role of a member.',
      access: scoped('organization', 'organizationId', 'owner'),
      body: z.object({ role }),
      answer: { status: 200, body: member, description: 'The member as it is now.' },
      problems: { last_owner: 'an organization always has an owner' },
      handle: ({ actor, organizationId, params, body }) =>
        organizations.changeRole(actor, organizationId, params.userId, body.role),
    }),
    defineRoute({
      method: 'delete',
      path: '/organizations/{organizationId}/members/{userId}',
      tag: 'organizations',
      summary: 'Removes a member.',
      access: scoped('organization', 'organizationId', 'owner'),
      answer: { status: 204, description: 'Removed.' },
      problems: { last_owner: 'an organization always has an owner' },
      handle: async ({ actor, organizationId, params }) => {
        await organizations.removeMember(actor, organizationId, params.userId)
        return undefined
      },
    }),
  ]
}
