// Makes decisions by rate-limiter-flexible, from client to client; prints what they took. As client.py.
import Redis from "ioredis";
import { RateLimiterRedis } from "rate-limiter-flexible";

const [url, decisions, atOnce, clients, limit] = process.argv.slice(2);
const redis = new Redis(url, { enableAutoPipelining: true });
const limiter = new RateLimiterRedis({ storeClient: redis, points: Number(limit), duration: 60 });

let number = 0;
let admitted = 0;

async function decide(key) {
  try {
    await limiter.consume(key);
    admitted += 1;
  } catch (refused) {
    if (refused instanceof Error) throw refused;
  }
}

async function work() {
  while (number < Number(decisions)) await decide(`user:${number++ % Number(clients)}`);
}

for (let warm = 0; warm < Number(atOnce); warm += 1) await decide("user:warm");
admitted = 0;
const began = performance.now();
const cpu = process.cpuUsage();
await Promise.all(Array.from({ length: Number(atOnce) }, work));
const used = process.cpuUsage(cpu);
console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, cpu: (used.user + used.system) / 1e6, admitted }));
await redis.quit();
