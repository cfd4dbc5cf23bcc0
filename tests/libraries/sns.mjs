// Judges messages of Amazon SNS with the package `sns-validator`, as their receivers do.
//
// Usage: sns.mjs NODE-MODULES < {"hosts": REGEXP, "certificate": PEM, "messages": [TEXT, …]}; prints [true, false, …].

import { createRequire } from "node:module";
import { EventEmitter } from "node:events";
import path from "node:path";

const require = createRequire(path.join(process.argv[2], "none.js"));
const input = [];
for await (const chunk of process.stdin) input.push(chunk);
const { hosts, certificate, messages } = JSON.parse(Buffer.concat(input).toString("utf8"));

// The package fetches the certificate by this function.
require("https").get = (_url, answer) => {
  const response = new EventEmitter();
  response.statusCode = 200;
  answer(response);
  response.emit("data", Buffer.from(certificate));
  response.emit("end");
  return new EventEmitter();
};
const MessageValidator = require("sns-validator");
const validator = new MessageValidator(new RegExp(hosts));
const valid = (message) => new Promise((resolve) => validator.validate(message, (error) => resolve(!error)));
const verdicts = [];
for (const message of messages) verdicts.push(await valid(message));
console.log(JSON.stringify(verdicts));
