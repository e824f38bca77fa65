// The peer on Node.js: fastify, and a pool of undici's for each upstream.
import Fastify from "fastify";
import { Pool } from "undici";

const { BENCH_UPSTREAM, BENCH_PORT } = process.env;
const pools = BENCH_UPSTREAM.split(" ").map((url) => new Pool(url, { connections: 256 }));
const [users, orders, catalog] = pools;

const ask = async (pool, path) => {
  const { statusCode, body } = await pool.request({ path, method: "GET" });
  if (statusCode !== 200) {
    await body.dump();
    throw new Error(`an upstream answered ${statusCode}`);
  }
  return body.json();
};

const app = Fastify({ keepAliveTimeout: 600_000 });

app.get("/merged/:size", async ({ params: { size } }) => {
  const [user, ordered, products] = await Promise.all([
    ask(users, `/${size}/user.json`),
    ask(orders, `/${size}/orders.json`),
    ask(catalog, `/${size}/products.json`),
  ]);
  return { data: { user, orders: ordered, products }, complete: true, errors: {} };
});

app.get("/wide/:width/:size", async ({ params: { width, size } }) => {
  const parts = Array.from({ length: Number(width) }, (_, part) => part);
  const answers = await Promise.all(parts.map((part) => ask(pools[part % 3], `/${size}/user.json?part=${part}`)));
  const data = Object.fromEntries(parts.map((part) => [`part${part}`, answers[part]]));
  return { data, complete: true, errors: {} };
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => process.exit(0));
}
await app.listen({ host: "127.0.0.1", port: Number(BENCH_PORT) });
