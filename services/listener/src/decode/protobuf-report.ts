import { type PlainSample, plainReport } from '@ares/proto/plain-telemetry'
import { Report } from '@ares/proto/telemetry/v1/telemetry'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import { guarded, Unreadable } from './decoder'
import { checkMetrics, checkShape, instantOf, sequenceOf } from './report-rules'

/** `ares.telemetry.v1.Report` as bytes. */
export const protobufReport = guarded((payload) => {
  const reader = new BinaryReader(payload)
  const report = plainReport(Report.decode(reader))
  // The generated code ends quietly at a tag of 0: what is behind it would vanish.
  if (reader.pos !== reader.len) throw new Unreadable('malformed', `unreadable at byte ${reader.pos}`)
  if (report.sequence !== undefined) sequenceOf(report.sequence)
  checkPart(report, 'timestamp')
  report.samples.forEach((sample, index) => {
    checkPart(sample, `samples[${index}].timestamp`)
  })
  return checkShape(report)
})

/** What a report and a sample have in common. */
function checkPart({ metrics, timestamp }: PlainSample, where: string): void {
  if (timestamp !== undefined) instantOf(timestamp, where)
  checkMetrics(metrics)
}
