// An ordinary consumer: it takes orders out of stock. And it reports to Recount what became of each.
//
//     node consumer.mjs http://127.0.0.1:7621 orders.ndjson
//
// With SILENT=1 in the environment it has the line that Recount exists for. Not every Node has SQLite,
// so what leaves the stock is a file, movements.csv, which each run writes anew.
import { fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const [address, orders] = process.argv.slice(2);
const movements = openSync("movements.csv", "w");

function handle(line) {
  let order;
  try {
    order = JSON.parse(line);
  } catch {
    order = {};
  }
  if (!order.id || order.quantity == null) return { verdict: "dead-lettered", reason: "unreadable" };
  if (order.quantity === 0) return { verdict: "skipped", reason: "zero_quantity" };
  writeSync(movements, `${order.id},${order.sku},${order.quantity}\n`);
  return { verdict: "applied" };
}

async function report(decisions, committed) {
  fsyncSync(movements); // nothing is reported before it is durable
  const body = JSON.stringify({ flow: "reserve-stock", partition: "0", committed, decisions });
  for (let tries = 0; tries < 60; tries++) {
    const request = { method: "POST", body, signal: AbortSignal.timeout(10_000) };
    const answer = await fetch(`${address}/v1/decisions`, request).catch(() => null);
    if (answer) console.error(await answer.text()); // says what it refused, if anything
    if (answer?.ok) return;
    console.error("Recount is away or busy, once more in a second");
    await sleep(1000);
  }
  throw new Error("Recount took no report for a minute: run this again when it is back");
}

const lines = readFileSync(orders, "utf8").trimEnd().split("\n");
let decisions = [];
for (const [offset, line] of lines.entries()) {
  const decision = handle(line);
  if (decision.verdict !== "applied" && process.env.SILENT) continue; // no error, no alert, no report
  decisions.push({ offset, ...decision });
  if (decisions.length === 100) await report(decisions.splice(0), offset + 1);
}
await report(decisions, lines.length);
