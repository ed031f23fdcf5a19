// The service's most travelled route as Fastify's users would write it: the same features, each by the library of
// its kind, with the settings that its documentation recommends for production.
//
// Environment:
//   HOST, PORT        where it listens
//   REDIS_URL         holds the limits, and the JSON of a class under CONTENT_PREFIX + its id
//   SECRET_KEY        signs the access tokens (HS256)
//   ACCESS_LOG        the file for the access log, one JSON object a line
//   LIMIT_PER_MINUTE, LIMIT_PER_HOUR   the two limits of a reader
import { randomUUID } from 'node:crypto'
import etag from '@fastify/etag'
import jwt from '@fastify/jwt'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import pino from 'pino'
import prometheus from 'prom-client'
import rateLimiters from 'rate-limiter-flexible'

const { HOST, PORT, REDIS_URL, SECRET_KEY, ACCESS_LOG, CONTENT_PREFIX } = process.env
const { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } = rateLimiters
const REQUEST_ID = /^[A-Za-z0-9._:+/=-]{20,200}$/
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

// --- stores

const redis = new Redis(REDIS_URL, { enableAutoPipelining: true, enableOfflineQueue: false, lazyConnect: true })
redis.on('error', (error) => app.log.error(error))

function limiter (name, points, duration) {
  return {
    name,
    points,
    duration,
    store: new RateLimiterRedis({
      storeClient: redis,
      keyPrefix: name,
      points,
      duration,
      rejectIfRedisNotReady: true,
      inMemoryBlockOnConsumed: points,
      insuranceLimiter: new RateLimiterMemory({ keyPrefix: name, points, duration })
    })
  }
}

const limiters = [
  limiter('generous', Number(process.env.LIMIT_PER_MINUTE), 60),
  limiter('api', Number(process.env.LIMIT_PER_HOUR), 3600)
]
const POLICY_HEADER = limiters.map(({ name, points, duration }) => `"${name}";q=${points};w=${duration}`).join(', ')

// --- metrics

prometheus.collectDefaultMetrics()
const requestSeconds = new prometheus.Histogram({
  name: 'http_request_duration_seconds',
  help: 'How long requests took, by method, route and status.',
  labelNames: ['method', 'route', 'status'],
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
})
const requestsTotal = new prometheus.Counter({
  name: 'http_requests_total',
  help: 'Requests, by method, route and status.',
  labelNames: ['method', 'route', 'status']
})
const requestsInProgress = new prometheus.Gauge({
  name: 'http_requests_in_progress',
  help: 'Requests that are being answered.'
})
const cacheHits = new prometheus.Counter({ name: 'cache_hits_total', help: 'Content found in Redis.' })
const cacheMisses = new prometheus.Counter({ name: 'cache_misses_total', help: 'Content not found in Redis.' })
const decisions = new prometheus.Counter({
  name: 'rate_limit_decisions_total',
  help: 'Decisions by policy and outcome.',
  labelNames: ['policy', 'outcome']
})

// --- the application

const app = Fastify({
  loggerInstance: pino({ level: 'info' }, pino.destination({ dest: ACCESS_LOG, minLength: 4096, sync: false })),
  disableRequestLogging: true, // one line of our own instead of Fastify's two
  requestIdHeader: false,
  genReqId: (request) => {
    const offered = request.headers['x-request-id']
    return offered !== undefined && REQUEST_ID.test(offered) ? offered : `req_${randomUUID().replaceAll('-', '')}`
  }
})

app.decorateRequest('startedAt', 0)
app.decorateRequest('limitMs', 0)
app.decorateRequest('cacheMs', 0)
app.decorateRequest('rateLimit', 'unlimited')

app.addHook('onRequest', async (request, reply) => {
  request.startedAt = performance.now()
  requestsInProgress.inc()
  const trace = TRACEPARENT.exec(request.headers.traceparent ?? '')
  reply.header('x-request-id', request.id)
  reply.header('x-trace-id', trace === null ? request.id : trace[1])
})

app.addHook('onSend', async (request, reply) => {
  const total = performance.now() - request.startedAt
  let timing = `total;dur=${total.toFixed(2)}`
  if (request.cacheMs > 0) timing += `, cache;dur=${request.cacheMs.toFixed(2)}`
  if (request.limitMs > 0) timing += `, limit;dur=${request.limitMs.toFixed(2)}`
  reply.headers({
    'server-timing': timing,
    'x-response-time': `${total.toFixed(2)}ms`,
    'x-performance-rating': total < 200 ? 'Good' : total < 500 ? 'Needs Improvement' : 'Poor',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'x-frame-options': 'DENY'
  })
})

app.addHook('onResponse', async (request, reply) => {
  const elapsed = reply.elapsedTime
  const labels = {
    method: request.method,
    route: request.routeOptions.url ?? 'unmatched',
    status: reply.statusCode
  }
  requestsInProgress.dec()
  requestsTotal.inc(labels)
  requestSeconds.observe(labels, elapsed / 1000)
  request.log.info({
    'http.method': labels.method,
    'http.route': labels.route,
    'http.status': labels.status,
    duration_ms: elapsed,
    limit_ms: request.limitMs,
    cache_ms: request.cacheMs,
    user_id: request.user?.sub ?? null,
    client_ip: request.ip,
    response_bytes: Number(reply.getHeader('content-length') ?? 0),
    rate_limit: request.rateLimit
  }, 'http.request')
})

await app.register(etag, { weak: true })
await app.register(jwt, { secret: SECRET_KEY, verify: { algorithms: ['HS256'], allowedIss: 'mastery', cache: true } })

async function authenticate (request) {
  await request.jwtVerify()
}

async function limit (request, reply) {
  const began = performance.now()
  let refused = -1
  const results = await Promise.all(limiters.map(({ store }, index) => store.consume(request.user.sub).catch((refusal) => {
    if (!(refusal instanceof RateLimiterRes)) throw refusal
    refused = index
    return refusal
  })))
  request.limitMs = performance.now() - began
  const closest = results[0].remainingPoints <= results[1].remainingPoints ? 0 : 1
  reply.headers({
    'x-ratelimit-limit': limiters[closest].points,
    'x-ratelimit-remaining': results[closest].remainingPoints,
    'x-ratelimit-reset': new Date(Date.now() + results[closest].msBeforeNext).toISOString(),
    'ratelimit-policy': POLICY_HEADER,
    ratelimit: limiters.map(({ name }, index) =>
      `"${name}";r=${results[index].remainingPoints};t=${Math.ceil(results[index].msBeforeNext / 1000)}`).join(', ')
  })
  request.rateLimit = refused < 0 ? 'allowed' : 'denied'
  for (const [index, { name }] of limiters.entries()) {
    decisions.inc({ policy: name, outcome: index === refused ? 'denied' : 'allowed' })
  }
  if (refused >= 0) {
    reply.header('retry-after', Math.ceil(results[refused].msBeforeNext / 1000))
    return problem(reply, 429, 'Too Many Requests', 'Too many requests.')
  }
}

function problem (reply, status, title, detail) {
  return reply.code(status).header('cache-control', 'no-store').type('application/problem+json')
    .send(JSON.stringify({ type: 'about:blank', title, status, detail, requestId: reply.request.id }))
}

app.setErrorHandler((error, request, reply) => {
  const status = error.statusCode ?? 500
  if (status >= 500) request.log.error(error)
  return problem(reply, status, error.name, status >= 500 ? 'Something went wrong.' : error.message)
})

app.get('/api/classes/:classId', { onRequest: authenticate, preHandler: limit }, async (request, reply) => {
  const began = performance.now()
  const body = await redis.getBuffer(CONTENT_PREFIX + request.params.classId)
  request.cacheMs = performance.now() - began
  if (body === null) {
    cacheMisses.inc()
    return problem(reply, 404, 'Not Found', 'There is no such class.')
  }
  cacheHits.inc()
  reply.headers({ 'cache-control': 'private, no-cache', vary: 'Authorization', 'x-cache': 'HIT' })
  return reply.type('application/json').send(body)
})

app.get('/api/metrics', async (_request, reply) => {
  return reply.type(prometheus.register.contentType).send(await prometheus.register.metrics())
})

process.once('SIGTERM', async () => {
  await app.close()
  redis.disconnect()
})
await redis.connect()
await app.listen({ host: HOST, port: Number(PORT) })
