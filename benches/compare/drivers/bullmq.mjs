// BullMQ: `Worker` with a concurrency of 100; events are on by default. The protocol is driver.py's.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(process.env.BENCH_MODULES + "/");
const { Queue, Worker } = require("bullmq");
const version = require("bullmq/package.json").version;

const [role, url, , workload, slots, target] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null };

const now = () => process.hrtime.bigint();

// What Python's drivers share as memory is written as a file, when all there is to tell has happened.
const note = (name) => {
  const file = openSync(`${process.env.BENCH_ARENA}/${name}`, "r+");
  const array = new BigUint64Array(Number(slots));
  return { array, write: () => writeSync(file, new Uint8Array(array.buffer), 0, array.byteLength, 0) };
};

const jobsOf = ({ first, count, pad = 0 }) =>
  Array.from({ length: count }, (_, at) => (pad ? { i: first + at, pad: "x".repeat(pad) } : { i: first + at }));

const retry = { attempts: 2, backoff: { type: "fixed", delay: 100 } };

async function adder() {
  const queue = new Queue("bench", { connection });
  const added = note("added");
  let options = {};
  const entry = (data) => ({ name: "noop", data, opts: options });
  const many = async (jobs, size) => {
    for (let at = 0; at < jobs.length; at += size) await queue.addBulk(jobs.slice(at, at + size).map(entry));
  };
  const one = async (jobs) => {
    for (const data of jobs) await queue.add("noop", data, options);
  };
  const ways = {
    one,
    many,
    load: (jobs) => many(jobs, 1000),
    lanes: (jobs) =>
      Promise.all(Array.from({ length: 50 }, (_, lane) => one(jobs.filter((_, at) => at % 50 === lane)))),
    paced: async (jobs, rate) => {
      const begin = performance.now();
      for (const [count, data] of jobs.entries()) {
        await sleep(Math.max(0, begin + (count * 1000) / rate - performance.now()));
        added.array[data.i] = now();
        await queue.add("noop", data);
      }
      added.write();
    },
    delayed: async (jobs, lead) => {
      const due = Math.ceil(Date.now() / 1000 + lead) * 1000;
      const clock = now() + BigInt(Math.round((due - Date.now()) * 1e6));
      for (const data of jobs) added.array[data.i] = clock;
      added.write();
      for (let at = 0; at < jobs.length; at += 1000)
        await queue.addBulk(
          jobs.slice(at, at + 1000).map((data) => ({ name: "noop", data, opts: { delay: due - Date.now() } })),
        );
      if (Date.now() > due) throw new Error(`${jobs.length} delayed jobs took more than ${lead} s to add`);
    },
  };
  await queue.waitUntilReady();
  console.log(JSON.stringify({ version, abilities: ["bulk", "delayed", "storm"] }));
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const jobs = jobsOf(order);
    options = order.storm ? retry : {};
    const begin = performance.now();
    const before = process.cpuUsage();
    try {
      await ways[order.way](jobs, ...(order.args ?? []));
      const { user, system } = process.cpuUsage(before);
      const seconds = (performance.now() - begin) / 1000;
      console.log(JSON.stringify({ seconds, cpu: (user + system) / 1e6, rss_mb: process.memoryUsage.rss() / 2 ** 20 }));
    } catch (error) {
      console.log(JSON.stringify({ error: String(error) }));
    }
  }
  process.exit(0);
}

function worker() {
  const started = note("started");
  const failed = new Set();
  const warm = Number(slots) - 1;
  let count = 0;
  const noop = async ({ data: { i } }) => {
    if (workload === "storm" && i & 1 && !failed.has(i)) {
      failed.add(i);
      throw new Error("the first run fails");
    }
    started.array[i] = now();
    if (i === warm || ++count === Number(target)) started.write();
  };
  new Worker("bench", noop, { connection, concurrency: 100 });
}

if (role === "adder") await adder();
else worker();
