// Where cargo builds and where the tests write: CARGO_TARGET_DIR, from the repository's root, or `target`.

import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export const TARGET = resolve(ROOT, process.env.CARGO_TARGET_DIR || 'target');
