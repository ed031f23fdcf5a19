// The service's most travelled route as Fastify's users would write it: the same features, each by the library of
// its kind, with the settings that its documentation recommends for production.
//
// Environment:
//   HOST, PORT        where it listens
//   REDIS_URL         holds the limits, and the JSON of a class under CONTENT_PREFIX + its id
//   SECRET_KEY        signs the access tokens (HS256)
//   ACCESS_LOG        the file for the access log, one JSON object a line
//   LIMIT_PER_MINUTE, LIMIT_PER_HOUR   the two limits of a reader
//   DATABASE_URL      a PostgreSQL with the tables of ratings.sql, for ratings; without it there are none
import { createHash, randomUUID } from 'node:crypto'
import etag from '@fastify/etag'
import jwt from '@fastify/jwt'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import pg from 'pg'
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

// --- ratings

const database = process.env.DATABASE_URL && new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
const HOUR = 3600_000
const REVIEW_AFTER = { 1: 12 * HOUR, 2: 12 * HOUR, 3: 24 * HOUR, 4: 72 * HOUR, 5: 168 * HOUR }
const DAY = 86400_000

const rating = {
  params: { type: 'object', properties: { cardId: { type: 'string', format: 'uuid' } } },
  body: {
    type: 'object',
    required: ['confidenceLevel'],
    additionalProperties: false,
    properties: {
      confidenceLevel: { type: 'integer', minimum: 1, maximum: 5 },
      responseTime: { type: ['integer', 'null'], minimum: 0 }
    }
  }
}

// Named, so that each connection prepares it once.
function statement (name, text) {
  return (client, values) => client.query({ name, text, values })
}

const takeKey = statement('take_key', `INSERT INTO peer.idempotency_keys (user_id, key, fingerprint) VALUES ($1, $2, $3)
  ON CONFLICT DO NOTHING RETURNING true`)
const findKey = statement('find_key', 'SELECT fingerprint, body FROM peer.idempotency_keys WHERE user_id = $1 AND key = $2')
const keepAnswer = statement('keep_answer', 'UPDATE peer.idempotency_keys SET body = $3 WHERE user_id = $1 AND key = $2')
const findCard = statement('find_card', `SELECT true FROM flashcards AS f
  JOIN decks AS d ON d.id = f.deck_id AND d.is_published
  JOIN classes AS c ON c.id = d.class_id AND c.is_published WHERE f.id = $1 AND f.is_published`)
const lockStats = statement('lock_stats',
  'SELECT streak_days, last_day::text FROM peer.stats WHERE user_id = $1 FOR UPDATE')
const findProgress = statement('find_progress', 'SELECT mastery FROM peer.progress WHERE user_id = $1 AND card_id = $2')
const addReview = statement('add_review', `INSERT INTO peer.reviews (user_id, card_id, confidence, response_time_ms, rated_at)
  VALUES ($1, $2, $3, $4, $5)`)
const upsertProgress = statement('upsert_progress', `INSERT INTO peer.progress AS p
  (user_id, card_id, confidence, mastery, times_seen, last_seen, next_review) VALUES ($1, $2, $3, $4, 1, $5, $6)
  ON CONFLICT (user_id, card_id) DO UPDATE SET confidence = excluded.confidence, mastery = excluded.mastery,
  times_seen = p.times_seen + 1, last_seen = excluded.last_seen, next_review = excluded.next_review RETURNING *`)
const updateStats = statement('update_stats', `UPDATE peer.stats SET new = new + $2, learning = learning + $3,
  mastered = mastered + $4, streak_days = $5, last_day = $6, last_active = $7 WHERE user_id = $1`)

app.put('/api/progress/cards/:cardId', { onRequest: authenticate, preHandler: limit, schema: rating }, async (request, reply) => {
  const userId = request.user.sub
  const key = request.headers['idempotency-key']
  const fingerprint = createHash('sha256').update(request.params.cardId).update(JSON.stringify(request.body)).digest('hex')
  const client = await database.connect()
  try {
    await client.query('BEGIN')
    if (key !== undefined && (await takeKey(client, [userId, key, fingerprint])).rowCount === 0) {
      const kept = (await findKey(client, [userId, key])).rows[0]
      await client.query('COMMIT')
      if (kept.fingerprint !== fingerprint) return problem(reply, 422, 'Unprocessable Content', 'This key belongs to another request.')
      return reply.type('application/json').send(kept.body)
    }
    const body = await record(client, userId, request.params.cardId, request.body)
    if (body === null) {
      await client.query('ROLLBACK')
      return problem(reply, 404, 'Not Found', 'There is no such card.')
    }
    if (key !== undefined) await keepAnswer(client, [userId, key, body])
    await client.query('COMMIT')
    return reply.header('cache-control', 'no-store').type('application/json').send(body)
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
})

// Writes progress, log, counters and streak; gives the progress as JSON, null without such a card.
async function record (client, userId, cardId, { confidenceLevel, responseTime }) {
  if ((await findCard(client, [cardId])).rowCount === 0) return null
  const stats = (await lockStats(client, [userId])).rows[0]
  const before = (await findProgress(client, [userId, cardId])).rows[0]?.mastery
  const now = new Date()
  const mastery = confidenceLevel >= 4 ? 'mastered' : confidenceLevel === 3 ? 'learning' : 'new'
  await addReview(client, [userId, cardId, confidenceLevel, responseTime ?? null, now])
  const row = (await upsertProgress(client,
    [userId, cardId, confidenceLevel, mastery, now, new Date(now.getTime() + REVIEW_AFTER[confidenceLevel])])).rows[0]
  const today = now.toISOString().slice(0, 10)
  let days = stats.streak_days
  if (stats.last_day !== today) {
    days = stats.last_day === new Date(now.getTime() - DAY).toISOString().slice(0, 10) ? days + 1 : 1
  }
  const changes = ['new', 'learning', 'mastered'].map((status) => Number(mastery === status) - Number(before === status))
  await updateStats(client, [userId, ...changes, days, today, now])
  return JSON.stringify({
    flashcardId: row.card_id,
    confidenceLevel: row.confidence,
    masteryStatus: row.mastery,
    timesSeen: row.times_seen,
    lastSeenDate: row.last_seen,
    nextReviewDate: row.next_review
  })
}

process.once('SIGTERM', async () => {
  await app.close()
  redis.disconnect()
  await database?.end()
})
await redis.connect()
await app.listen({ host: HOST, port: Number(PORT) })
