// Looks for every operation of a document in what each generator made of it.
//   node complete.mjs atlas shop
import { readFileSync, readdirSync } from 'node:fs';

const methods = ['get', 'put', 'post', 'patch', 'delete'];
const camel = (id) => id.replace(/[_-]+(.)/g, (_, letter) => letter.toUpperCase());
const snake = (id) => id.replaceAll('-', '_');
const text = (path) => readFileSync(`generated/${path}`, 'utf8');
const has = (pattern) => pattern !== undefined;

const generators = {
  'openapi-typescript': (api) => {
    const types = text(`openapi-typescript/${api}.ts`);
    return (id) => types.includes(`\n    ${id}: {`) || types.includes(`\n    "${id}": {`);
  },
  'hey-api': (api) => {
    const sdk = text(`hey-api/${api}/sdk.gen.ts`);
    return (id) => sdk.includes(`export const ${camel(id)} = `);
  },
  orval: (api) => {
    const functions = text(`orval/${api}.ts`);
    return (id) => functions.includes(`export const ${camel(id)} = `);
  },
  'openapi-python-client': (api) => {
    const files = readdirSync(`generated/python/${api}/api`, { recursive: true });
    const names = new Set(files.map((file) => file.replace(/^.*\//, '')));
    return (id) => names.has(`${snake(id)}.py`);
  },
};

let missing = 0;
for (const api of process.argv.slice(2)) {
  const { paths } = JSON.parse(readFileSync(`${api}.json`, 'utf8'));
  const ids = Object.values(paths).flatMap((path) => methods.map((method) => path[method]?.operationId).filter(has));
  for (const [generator, read] of Object.entries(generators)) {
    const absent = ids.filter((id) => !read(api)(id));
    console.log(`${generator}: ${ids.length - absent.length} of ${ids.length} operations of ${api} ${absent.join(' ')}`);
    missing += absent.length;
  }
}
process.exit(missing === 0 ? 0 : 1);
