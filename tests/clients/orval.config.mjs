// One module for each API: fetch functions with their headers, answers typed by status.
const api = (name) => ({
  input: `./${name}.json`,
  output: {
    target: `./generated/orval/${name}.ts`,
    mode: 'single',
    client: 'fetch',
    httpClient: 'fetch',
    headers: true,
    override: { mutator: { path: './fetcher.ts', name: 'fetcher' } },
  },
});

export default { atlas: api('atlas'), shop: api('shop') };
