// Prints the totals on a line of their own, for whoever reads the output by machine.
module.exports = class {
  onRunComplete(_contexts, results) {
    const skipped = results.numPendingTests ? `, ${results.numPendingTests} skipped` : ''
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites
    console.log(`\nTests: ${results.numPassedTests} passed, ${failed} failed${skipped}`)
  }
}
