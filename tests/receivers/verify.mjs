// A webhook receiver's check, by the published JavaScript library of Standard Webhooks.
//
// Reads JSON lines {"headers": {...}, "body": "...", "secret": "whsec_..."} and answers each with `ok` or `bad: <why>`.
// Needs: npm install standardwebhooks@1.1.1, beside this file or in a folder that NODE_PATH names.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// `require`, not `import`: only it looks into NODE_PATH.
const { Webhook } = createRequire(import.meta.url)("standardwebhooks");

for await (const line of createInterface({ input: process.stdin })) {
  let answer = "ok";
  try {
    const { headers, body, secret } = JSON.parse(line);
    new Webhook(secret).verify(body, headers);
  } catch (error) {
    answer = `bad: ${error.name}: ${error.message}`.replaceAll("\n", " ");
  }
  console.log(answer);
}
