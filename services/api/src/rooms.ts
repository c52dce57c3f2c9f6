import type { GrpcServerOptions, LeafSource } from '@ares/chassis'
import { CommandServiceService } from '@ares/proto/commands/v1/commands'
import { DeviceServiceService } from '@ares/proto/devices/v1/devices'
import { AdmissionServiceService } from '@ares/proto/directory/v1/admission'
import { DirectoryServiceService } from '@ares/proto/directory/v1/directory'
import type { EmqxManagement } from './broker/emqx-management'
import type { ApiContext } from './context'
import { accessRoutes } from './features/access/access.routes'
import { AccessService } from './features/access/access.service'
import { AccessStore } from './features/access/access.store'
import { AuthorizerExplanations } from './features/access/explanations'
import { admissionRoutes } from './features/admissions/admissions.routes'
import { admissionsRpc } from './features/admissions/admissions.rpc'
import { AdmissionService } from './features/admissions/admissions.service'
import { AdmissionStore } from './features/admissions/admissions.store'
import { auditRoutes } from './features/audit/audit.routes'
import { AuditService } from './features/audit/audit.service'
import { AuditStore } from './features/audit/audit.store'
import { AttemptLimit } from './features/certificates/attempt-limit'
import { certificateRoutes } from './features/certificates/certificates.routes'
import { CertificateService } from './features/certificates/certificates.service'
import { CertificateStore } from './features/certificates/certificates.store'
import type { Pki } from './features/certificates/pki'
import { renewalRoutes } from './features/certificates/renewal.routes'
import { renewalRpc } from './features/certificates/renewal.rpc'
import { RenewalService } from './features/certificates/renewal.service'
import { RenewalStore } from './features/certificates/renewal.store'
import { Retirement } from './features/certificates/retirement'
import { CertificateSigning } from './features/certificates/signing'
import { CommandDelivery, listenerPublishers } from './features/commands/command-delivery'
import { commandRoutes } from './features/commands/commands.routes'
import { commandsRpc } from './features/commands/commands.rpc'
import { CommandService } from './features/commands/commands.service'
import { CommandStore } from './features/commands/commands.store'
import { deviceRoutes } from './features/devices/devices.routes'
import { DeviceService } from './features/devices/devices.service'
import { statusRpc } from './features/devices/status.rpc'
import { StatusService } from './features/devices/status.service'
import { StatusStore } from './features/devices/status.store'
import { DirectoryFeed } from './features/directory/directory.feed'
import { createFeedMetrics, directoryRpc } from './features/directory/directory.rpc'
import { DirectoryStore } from './features/directory/directory.store'
import { AttemptJournal } from './features/enrollment/attempt-journal'
import { enrollmentRoutes } from './features/enrollment/enrollment.routes'
import { EnrollmentService } from './features/enrollment/enrollment.service'
import { EnrollmentTokenService } from './features/enrollment/enrollment-tokens.service'
import { hardwareRoutes } from './features/hardware/hardware.routes'
import { HardwareService } from './features/hardware/hardware.service'
import { AccessTokens } from './features/identity/access-token'
import { identityRoutes } from './features/identity/identity.routes'
import { OrganizationService } from './features/identity/organizations.service'
import type { PasswordCost } from './features/identity/password'
import { SessionService } from './features/identity/sessions.service'
import { UserService } from './features/identity/users.service'
import { AccessControl, type Authenticate } from './http/access'
import type { Route } from './http/route'
import { telemetryRooms } from './telemetry-rooms'

/** A part of the house: what it shows to people, what it shows to the other services, and its life. */
export interface Rooms {
  readonly routes: readonly Route[]
  readonly rpc: GrpcServerOptions['services']
  /** Who may call which method. */
  readonly allow: GrpcServerOptions['allow']
  /** After the migrations, before the first request. */
  start(): Promise<void>
  stop(): Promise<void>
}

/** The rooms where people arrange things: identity, hardware, devices, certificates, audit; and what devices say of themselves. */
export function peopleRooms(
  { database: { prisma, pool }, config, logger }: ApiContext,
  pki: Pki,
  { passwordCost, attemptsWrittenEveryMs }: { passwordCost?: PasswordCost; attemptsWrittenEveryMs?: number } = {},
): Rooms & { readonly authenticate: Authenticate } {
  const audit = new AuditService(new AuditStore(prisma))
  const tokens = new AccessTokens(prisma)
  const users = new UserService(prisma, audit, passwordCost)
  const sessions = new SessionService(prisma, tokens, audit, passwordCost)
  const organizations = new OrganizationService(prisma, users, audit)
  const certificateStore = new CertificateStore(prisma)
  const signing = new CertificateSigning(certificateStore, pki, logger)
  const certificates = new CertificateService(certificateStore, signing, audit)
  const renewalStore = new RenewalStore(prisma)
  const renewals = new RenewalService(certificateStore, renewalStore, signing, audit, logger)
  const retirement = new Retirement(certificateStore, renewalStore, audit, logger)
  const attempts = new AttemptJournal(audit, logger)
  return {
    routes: [
      ...identityRoutes({ sessions, users, organizations }),
      ...hardwareRoutes(new HardwareService(prisma, audit)),
      ...deviceRoutes(new DeviceService(prisma, audit)),
      ...certificateRoutes(certificates),
      ...renewalRoutes(renewals, new AttemptLimit()),
      ...enrollmentRoutes({
        tokens: new EnrollmentTokenService(prisma, audit),
        enrollments: new EnrollmentService(prisma, signing, audit, attempts, new AttemptLimit(), logger),
      }),
      ...auditRoutes(audit),
    ],
    rpc: [
      {
        definition: DeviceServiceService,
        implementation: { ...statusRpc(new StatusService(new StatusStore(pool))), ...renewalRpc(renewals) },
      },
    ],
    allow: {
      [DeviceServiceService.recordStatus.path]: ['listener'],
      [DeviceServiceService.renewCertificate.path]: ['listener'],
    },
    async authenticate(token) {
      const { userId, email, sessionId } = await tokens.verify(token)
      return { kind: 'user', id: userId, email, sessionId }
    },
    async start() {
      const { firstUser } = config
      if (firstUser && (await users.ensureFirst(firstUser.email, firstUser.password))) {
        logger.info('made the first user', { email: firstUser.email })
      }
      await tokens.start()
      retirement.start()
      attempts.start(attemptsWrittenEveryMs)
    },
    async stop() {
      await attempts.stop()
      await retirement.stop()
    },
  }
}

const DIRECTORY_CHANGES_KEPT_MS = 24 * 3_600_000

/**
 * The rooms that the broker side fills and reads: telemetry, dead letters, device status, the directory, commands.
 * @param identity what commands are brought to the listeners with
 * @param broker absent: nobody governs the rate of the devices
 */
export function dataRooms(
  context: ApiContext,
  identity: LeafSource,
  broker?: Pick<EmqxManagement, 'call'>,
): Rooms & { readonly directory: DirectoryFeed } {
  const { config, notifications, logger, stopping } = context
  const { prisma, pool } = context.database
  const telemetry = telemetryRooms(context, broker)
  const directory = new DirectoryStore(pool)
  const feed = new DirectoryFeed(directory, notifications)
  const admissions = new AdmissionService(new AdmissionStore(pool), { logger })
  const explanations = new AuthorizerExplanations(config.authorizerAddresses, identity)
  const access = new AccessService(new AccessStore(pool), new AccessControl(pool), explanations)
  const listeners = listenerPublishers(config.listenerAddresses, identity)
  const delivery = new CommandDelivery(listeners.publishers)
  const commands = new CommandService(
    new CommandStore(prisma, pool),
    delivery,
    new AuditService(new AuditStore(prisma)),
    { logger },
  )
  const prune = () =>
    directory.prune(new Date(Date.now() - DIRECTORY_CHANGES_KEPT_MS)).catch((error: unknown) => {
      logger.warn('old changes of the directory were not removed, trying again within the hour', {
        error: String(error),
      })
    })
  let pruning: NodeJS.Timeout | undefined
  return {
    directory: feed,
    routes: [...telemetry.routes, ...commandRoutes(commands), ...admissionRoutes(admissions), ...accessRoutes(access)],
    rpc: [
      ...telemetry.rpc,
      { definition: CommandServiceService, implementation: commandsRpc(commands) },
      {
        definition: DirectoryServiceService,
        implementation: directoryRpc(feed, {
          logger,
          signal: stopping.signal,
          metrics: createFeedMetrics(context.metrics),
        }),
      },
      { definition: AdmissionServiceService, implementation: admissionsRpc(admissions) },
    ],
    allow: {
      ...telemetry.allow,
      [CommandServiceService.recordResponses.path]: ['listener'],
      [DirectoryServiceService.watchDirectory.path]: ['authorizer'],
      [DirectoryServiceService.confirmDirectory.path]: ['authorizer'],
      [AdmissionServiceService.recordAdmissions.path]: ['authorizer'],
    },
    async start() {
      await notifications.start()
      await telemetry.start()
      await prune()
      commands.start()
      admissions.start()
      pruning = setInterval(prune, 3_600_000).unref()
    },
    async stop() {
      clearInterval(pruning)
      await commands.stop()
      await admissions.stop()
      listeners.close()
      explanations.close()
      await telemetry.stop()
      await notifications.stop()
    },
  }
}
