// node build.mjs <wit folder> <component to write>
//
// Without `http` and `fetch-event` the component does not import wasi:http, which posthouse does not provide.
// package.json pins jco to a version with few dependencies; its own `jco componentize` is not used.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [witPath, goal] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: 'guest.js',
  witPath,
  worldName: 'plugin',
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile(goal, component);
