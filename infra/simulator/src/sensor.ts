/** What a DHT22 in a room would say: a day's curve, noise, and a heater that goes on when it is cold. */
export class Sensor {
  private heaterOn = false
  /** Rooms differ: half a day of phase would be too much, two hours are plausible. */
  private readonly phaseHours: number
  private readonly offset: number

  /** @param seed the same seed gives the same room */
  constructor(seed: number) {
    this.phaseHours = fraction(seed * 0.618) * 2 - 1
    this.offset = fraction(seed * 0.382) * 3 - 1.5
  }

  read(at: Date): { temperature: number; humidity: number; heater_on: boolean } {
    const hour = at.getUTCHours() + at.getUTCMinutes() / 60 + at.getUTCSeconds() / 3600 + this.phaseHours
    // Warmest at 15:00, coldest at 03:00.
    const curve = Math.cos(((hour - 15) / 24) * 2 * Math.PI)
    const temperature = 20.5 + 3 * curve + this.offset + noise(0.15) + (this.heaterOn ? 0.6 : 0)
    // Two thresholds, or it would flicker.
    if (temperature < 18.5) this.heaterOn = true
    if (temperature > 19.5) this.heaterOn = false
    const humidity = 47 - 6 * curve + noise(0.5)
    return { temperature: oneDecimal(temperature), humidity: oneDecimal(humidity), heater_on: this.heaterOn }
  }
}

const oneDecimal = (value: number): number => Math.round(value * 10) / 10
const fraction = (value: number): number => value - Math.floor(value)
const noise = (amplitude: number): number => (Math.random() + Math.random() - 1) * amplitude
