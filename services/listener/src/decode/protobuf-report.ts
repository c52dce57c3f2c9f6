import { Report } from '@ares/proto/telemetry/v1/telemetry'
import { BinaryReader } from '@bufbuild/protobuf/wire'
import { guarded, Unreadable } from './decoder'
import { checkMetricName, checkShape, instantOf, metricValue, quoted, sequenceOf } from './report-rules'

/** `ares.telemetry.v1.Report` as bytes. */
export const protobufReport = guarded((payload) => {
  const reader = new BinaryReader(payload)
  const report = Report.decode(reader)
  // The generated code ends quietly at a tag of 0: what is behind it would vanish.
  if (reader.pos !== reader.len) throw new Unreadable('malformed', `unreadable at byte ${reader.pos}`)
  if (report.sequence !== undefined) sequenceOf(report.sequence)
  checkPart(report, 'timestamp')
  report.samples.forEach((sample, index) => {
    checkPart(sample, `samples[${index}].timestamp`)
  })
  return checkShape(report)
})

/** What a report and a sample have in common; brings the instant to whole milliseconds. */
function checkPart(part: Pick<Report, 'metrics' | 'timestamp'>, where: string): void {
  if (part.timestamp) part.timestamp = instantOf(part.timestamp.getTime(), where)
  // The generated code assigns a map's entry `__proto__` as the prototype.
  if (Object.getPrototypeOf(part.metrics) !== Object.prototype) checkMetricName('__proto__')
  for (const name of Object.keys(part.metrics)) {
    checkMetricName(name)
    const given = part.metrics[name]?.value
    if (given === undefined) throw new Unreadable('bad_value', `metric ${quoted(name)} has no value`)
    metricValue(given.value, name)
  }
}
