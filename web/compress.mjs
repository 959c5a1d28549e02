// Packs what was built, once and as small as it gets, so that the server only has to send it.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const LEAST_BYTES = 512;
const root = new URL('../src/borough/web/static/', import.meta.url).pathname;
for (const name of readdirSync(root, { recursive: true })) {
  if (!/\.(?:html|js|css|svg)$/.test(name)) continue;
  const path = join(root, name);
  const plain = readFileSync(path);
  if (plain.length < LEAST_BYTES) continue;
  writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
  writeFileSync(`${path}.br`, brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
}
