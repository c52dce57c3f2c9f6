declare module '@pushcorn/hocon-parser' {
  const hocon: {
    parse(source: { readonly text: string } | { readonly url: string }): Promise<unknown>
  }
  export default hocon
}
