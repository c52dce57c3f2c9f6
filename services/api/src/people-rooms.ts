import { DeviceServiceService } from '@ares/proto/devices/v1/devices'
import type { ApiContext } from './context'
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
import { deviceRoutes } from './features/devices/devices.routes'
import { DeviceService } from './features/devices/devices.service'
import { DeviceStore } from './features/devices/devices.store'
import { statusRpc } from './features/devices/status.rpc'
import { StatusService } from './features/devices/status.service'
import { StatusStore } from './features/devices/status.store'
import { AttemptJournal } from './features/enrollment/attempt-journal'
import { enrollmentRoutes } from './features/enrollment/enrollment.routes'
import { EnrollmentService } from './features/enrollment/enrollment.service'
import { EnrollmentStore } from './features/enrollment/enrollment.store'
import { EnrollmentTokenService } from './features/enrollment/enrollment-tokens.service'
import { EnrollmentTokenStore } from './features/enrollment/enrollment-tokens.store'
import { hardwareRoutes } from './features/hardware/hardware.routes'
import { HardwareService } from './features/hardware/hardware.service'
import { HardwareStore } from './features/hardware/hardware.store'
import { AccessTokens } from './features/identity/access-token'
import { identityRoutes } from './features/identity/identity.routes'
import { OrganizationService } from './features/identity/organizations.service'
import { OrganizationStore } from './features/identity/organizations.store'
import type { PasswordCost } from './features/identity/password'
import { SessionKeyStore } from './features/identity/session-keys.store'
import { SessionService } from './features/identity/sessions.service'
import { SessionStore } from './features/identity/sessions.store'
import { UserService } from './features/identity/users.service'
import { UserStore } from './features/identity/users.store'
import type { Authenticate } from './http/access'
import type { Rooms } from './rooms'

/** The rooms where people arrange things: identity, hardware, devices, certificates, audit; and what devices say of themselves. */
export function peopleRooms(
  { database: { prisma, pool }, config, logger }: ApiContext,
  pki: Pki,
  { passwordCost, attemptsWrittenEveryMs }: { passwordCost?: PasswordCost; attemptsWrittenEveryMs?: number } = {},
): Rooms & { readonly authenticate: Authenticate } {
  const audit = new AuditService(new AuditStore(prisma))
  const tokens = new AccessTokens(new SessionKeyStore(prisma))
  const userStore = new UserStore(prisma)
  const sessionStore = new SessionStore(prisma)
  const users = new UserService(userStore, sessionStore, audit, passwordCost)
  const sessions = new SessionService(sessionStore, userStore, tokens, audit, passwordCost)
  const organizations = new OrganizationService(new OrganizationStore(prisma), users, audit)
  const hardware = new HardwareService(new HardwareStore(prisma), audit)
  const certificateStore = new CertificateStore(prisma)
  const signing = new CertificateSigning(certificateStore, pki, logger)
  const certificates = new CertificateService(certificateStore, signing, audit)
  const renewalStore = new RenewalStore(prisma)
  const renewals = new RenewalService(certificateStore, renewalStore, signing, audit, logger)
  const retirement = new Retirement(certificateStore, renewalStore, audit, logger)
  const enrollmentStore = new EnrollmentStore(prisma)
  const attempts = new AttemptJournal(audit, logger)
  return {
    routes: [
      ...identityRoutes({ sessions, users, organizations }),
      ...hardwareRoutes(hardware),
      ...deviceRoutes(new DeviceService(new DeviceStore(prisma), hardware, audit)),
      ...certificateRoutes(certificates),
      ...renewalRoutes(renewals, new AttemptLimit()),
      ...enrollmentRoutes({
        tokens: new EnrollmentTokenService(new EnrollmentTokenStore(prisma), hardware, audit),
        enrollments: new EnrollmentService(enrollmentStore, signing, audit, attempts, new AttemptLimit(), logger),
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
