// The service's most travelled route on Go's net/http: the same features, each by the library that Debian has for it.
//
// Environment:
//
//	HOST, PORT        where it listens
//	REDIS_URL         holds the limits, and the JSON of a class under CONTENT_PREFIX + its id
//	SECRET_KEY        signs the access tokens (HS256)
//	ACCESS_LOG        the file for the access log, one JSON object a line
//	LIMIT_PER_MINUTE, LIMIT_PER_HOUR   the two limits of a reader
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt"
	"github.com/gomodule/redigo/redis"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// One fixed window, as most limiters on Redis count: KEYS 1 the counter; ARGV 1 the window in milliseconds.
// Returns what is used, and milliseconds until the window ends.
const countScript = `
local used = redis.call('INCR', KEYS[1])
if used == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return { used, redis.call('PTTL', KEYS[1]) }
`

type limiter struct {
	name      string
	points    int64
	window    time.Duration
	mutex     sync.Mutex
	blocked   map[string]time.Time // refused from memory until then
	decisions map[string]prometheus.Counter
}

type use struct {
	used  int64
	reset time.Duration
}

var (
	requestID   = regexp.MustCompile(`^[A-Za-z0-9._:+/=-]{20,200}$`)
	traceparent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$`)
	prefix      = os.Getenv("CONTENT_PREFIX")
	secret      = []byte(os.Getenv("SECRET_KEY"))
	script      = redis.NewScript(1, countScript)
	pool        = &redis.Pool{
		MaxIdle:     64,
		MaxActive:   64,
		Wait:        true,
		IdleTimeout: time.Minute,
		Dial: func() (redis.Conn, error) {
			return redis.DialURL(os.Getenv("REDIS_URL"), redis.DialReadTimeout(time.Second))
		},
	}
	parser = &jwt.Parser{ValidMethods: []string{"HS256"}}

	requestSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "http_request_duration_seconds",
		Help:    "How long requests took, by method, route and status.",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5},
	}, []string{"method", "route", "status"})
	requestsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "http_requests_total", Help: "Requests, by method, route and status.",
	}, []string{"method", "route", "status"})
	requestsInProgress = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "http_requests_in_progress", Help: "Requests that are being answered.",
	})
	cacheHits   = prometheus.NewCounter(prometheus.CounterOpts{Name: "cache_hits_total", Help: "Content found in Redis."})
	cacheMisses = prometheus.NewCounter(prometheus.CounterOpts{Name: "cache_misses_total", Help: "Content not found in Redis."})
	decisions   = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rate_limit_decisions_total", Help: "Decisions by policy and outcome.",
	}, []string{"policy", "outcome"})

	limiters     []*limiter
	policyHeader string
	access       *accessLog
)

// What is known of a request while it is answered.
type request struct {
	id, route, user, limited string
	limit, cache             time.Duration
}

// One line a request, as encoding/json writes it.
type line struct {
	Level         string  `json:"level"`
	Time          string  `json:"time"`
	Message       string  `json:"msg"`
	RequestID     string  `json:"reqId"`
	Method        string  `json:"http.method"`
	Route         string  `json:"http.route"`
	Status        int     `json:"http.status"`
	DurationMs    float64 `json:"duration_ms"`
	LimitMs       float64 `json:"limit_ms"`
	CacheMs       float64 `json:"cache_ms"`
	UserID        string  `json:"user_id"`
	ClientIP      string  `json:"client_ip"`
	ResponseBytes int     `json:"response_bytes"`
	RateLimit     string  `json:"rate_limit"`
}

// Writes in blocks of 4 kB, and what is left twice a second.
type accessLog struct {
	mutex  sync.Mutex
	buffer *bufio.Writer
}

func (l *accessLog) write(entry *line) {
	text, _ := json.Marshal(entry)
	l.mutex.Lock()
	l.buffer.Write(text)
	l.buffer.WriteByte('\n')
	l.mutex.Unlock()
}

func (l *accessLog) flush() {
	l.mutex.Lock()
	l.buffer.Flush()
	l.mutex.Unlock()
}

func newLimiter(name, points string, window time.Duration) *limiter {
	number, err := strconv.ParseInt(points, 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return &limiter{
		name: name, points: number, window: window, blocked: map[string]time.Time{},
		decisions: map[string]prometheus.Counter{
			"allowed": decisions.WithLabelValues(name, "allowed"), "denied": decisions.WithLabelValues(name, "denied"),
		},
	}
}

func (l *limiter) key(user string) string { return "go:" + l.name + ":" + user }

func (l *limiter) block(user string, until time.Time) {
	l.mutex.Lock()
	l.blocked[user] = until
	l.mutex.Unlock()
}

func (l *limiter) left(user string, now time.Time) time.Duration {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	until, found := l.blocked[user]
	if !found {
		return 0
	}
	if !until.After(now) {
		delete(l.blocked, user)
		return 0
	}
	return until.Sub(now)
}

// Both counts and the content, by one write and one read of a connection of the pool.
func ask(user, class string) (uses []use, body []byte, err error) {
	connection := pool.Get()
	defer connection.Close()
	for _, one := range limiters {
		if err = script.SendHash(connection, one.key(user), one.window.Milliseconds()); err != nil {
			return nil, nil, err
		}
	}
	if err = connection.Send("GET", prefix+class); err != nil {
		return nil, nil, err
	}
	if err = connection.Flush(); err != nil {
		return nil, nil, err
	}
	for range limiters {
		counted, err := redis.Int64s(connection.Receive())
		if err != nil {
			return nil, nil, err
		}
		uses = append(uses, use{counted[0], time.Duration(counted[1]) * time.Millisecond})
	}
	body, err = redis.Bytes(connection.Receive())
	if errors.Is(err, redis.ErrNil) {
		return uses, nil, nil
	}
	return uses, body, err
}

func authenticate(header string) (string, bool) {
	if !strings.HasPrefix(header, "Bearer ") {
		return "", false
	}
	claims := jwt.StandardClaims{}
	_, err := parser.ParseWithClaims(header[7:], &claims, func(*jwt.Token) (interface{}, error) { return secret, nil })
	return claims.Subject, err == nil && claims.VerifyIssuer("mastery", true)
}

func problem(w http.ResponseWriter, r *request, status int, detail string) (int, int) {
	text, _ := json.Marshal(map[string]interface{}{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail, "requestId": r.id,
	})
	headers := w.Header()
	headers["Cache-Control"] = []string{"no-store"}
	headers["Content-Type"] = []string{"application/problem+json"}
	return answer(w, status, text)
}

func answer(w http.ResponseWriter, status int, body []byte) (int, int) {
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body)
	return status, len(body)
}

func sayLimits(headers http.Header, uses []use) {
	closest := 0
	parts := make([]string, len(limiters))
	remaining := make([]int64, len(limiters))
	for i, one := range limiters {
		remaining[i] = one.points - uses[i].used
		if remaining[i] < 0 {
			remaining[i] = 0
		}
		parts[i] = `"` + one.name + `";r=` + strconv.FormatInt(remaining[i], 10) + ";t=" +
			strconv.FormatInt(int64((uses[i].reset+time.Second-1)/time.Second), 10)
		if remaining[i] < remaining[closest] {
			closest = i
		}
	}
	headers["X-Ratelimit-Limit"] = []string{strconv.FormatInt(limiters[closest].points, 10)}
	headers["X-Ratelimit-Remaining"] = []string{strconv.FormatInt(remaining[closest], 10)}
	headers["X-Ratelimit-Reset"] = []string{time.Now().Add(uses[closest].reset).UTC().Format(time.RFC3339)}
	headers["Ratelimit-Policy"] = []string{policyHeader}
	headers["Ratelimit"] = []string{strings.Join(parts, ", ")}
}

func refuse(w http.ResponseWriter, r *request, uses []use, refused int) (int, int) {
	r.limited = "denied"
	wait := (uses[refused].reset + time.Second - 1) / time.Second
	w.Header()["Retry-After"] = []string{strconv.FormatInt(int64(wait), 10)}
	for i, one := range limiters {
		outcome := "allowed"
		if i == refused {
			outcome = "denied"
		}
		one.decisions[outcome].Inc()
	}
	sayLimits(w.Header(), uses)
	return problem(w, r, http.StatusTooManyRequests, "Too many requests.")
}

func getClass(w http.ResponseWriter, hr *http.Request, r *request) (int, int) {
	r.route = "/api/classes/:classId"
	user, known := authenticate(hr.Header.Get("Authorization"))
	if !known {
		return problem(w, r, http.StatusUnauthorized, "Who is asking?")
	}
	r.user = user
	began := time.Now()
	for i, one := range limiters {
		if left := one.left(user, began); left > 0 {
			uses := make([]use, len(limiters))
			uses[i] = use{one.points, left}
			return refuse(w, r, uses, i)
		}
	}
	uses, body, err := ask(user, strings.TrimPrefix(hr.URL.Path, "/api/classes/"))
	r.limit, r.cache = time.Since(began), time.Since(began)
	if err != nil {
		log.Print(err)
		return problem(w, r, http.StatusInternalServerError, "Something went wrong.")
	}
	for i, one := range limiters {
		if uses[i].used > one.points {
			one.block(user, began.Add(uses[i].reset))
			return refuse(w, r, uses, i)
		}
	}
	r.limited = "allowed"
	for _, one := range limiters {
		one.decisions["allowed"].Inc()
	}
	headers := w.Header()
	sayLimits(headers, uses)
	if body == nil {
		cacheMisses.Inc()
		return problem(w, r, http.StatusNotFound, "There is no such class.")
	}
	cacheHits.Inc()
	hash := fnv.New64a()
	hash.Write(body)
	tag := `W/"` + strconv.FormatUint(hash.Sum64(), 36) + `"`
	headers["Cache-Control"] = []string{"private, no-cache"}
	headers["Vary"] = []string{"Authorization"}
	headers["X-Cache"] = []string{"HIT"}
	headers["Etag"] = []string{tag}
	if hr.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified, 0
	}
	headers["Content-Type"] = []string{"application/json; charset=utf-8"}
	return answer(w, http.StatusOK, body)
}

// Writes the headers that say how long it took, just before the head is sent.
type timed struct {
	http.ResponseWriter
	began time.Time
	r     *request
}

func (w *timed) WriteHeader(status int) {
	total := milliseconds(time.Since(w.began))
	rating := "Good"
	if total >= 500 {
		rating = "Poor"
	} else if total >= 200 {
		rating = "Needs Improvement"
	}
	text := strconv.FormatFloat(total, 'f', 2, 64)
	timing := "total;dur=" + text
	if w.r.limit > 0 {
		timing += ", limit;dur=" + strconv.FormatFloat(milliseconds(w.r.limit), 'f', 2, 64)
	}
	headers := w.Header()
	headers["Server-Timing"] = []string{timing}
	headers["X-Response-Time"] = []string{text + "ms"}
	headers["X-Performance-Rating"] = []string{rating}
	headers["X-Content-Type-Options"] = []string{"nosniff"}
	headers["Referrer-Policy"] = []string{"no-referrer"}
	headers["X-Frame-Options"] = []string{"DENY"}
	w.ResponseWriter.WriteHeader(status)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func handle(plain http.ResponseWriter, hr *http.Request) {
	began := time.Now()
	requestsInProgress.Inc()
	r := &request{id: hr.Header.Get("X-Request-Id"), route: "unmatched", limited: "unlimited"}
	if !requestID.MatchString(r.id) {
		var random [16]byte
		rand.Read(random[:])
		r.id = "req_" + hex.EncodeToString(random[:])
	}
	w := &timed{plain, began, r}
	trace := r.id
	if found := traceparent.FindStringSubmatch(hr.Header.Get("Traceparent")); found != nil {
		trace = found[1]
	}
	headers := w.Header()
	headers["X-Request-Id"] = []string{r.id}
	headers["X-Trace-Id"] = []string{trace}
	var status, size int
	if hr.Method == http.MethodGet && strings.HasPrefix(hr.URL.Path, "/api/classes/") {
		status, size = getClass(w, hr, r)
	} else {
		status, size = problem(w, r, http.StatusNotFound, "There is no such path.")
	}
	elapsed := time.Since(began)
	requestsInProgress.Dec()
	code := strconv.Itoa(status)
	requestsTotal.WithLabelValues(hr.Method, r.route, code).Inc()
	requestSeconds.WithLabelValues(hr.Method, r.route, code).Observe(elapsed.Seconds())
	address, _, _ := net.SplitHostPort(hr.RemoteAddr)
	access.write(&line{
		Level: "info", Time: began.UTC().Format(time.RFC3339Nano), Message: "http.request", RequestID: r.id,
		Method: hr.Method, Route: r.route, Status: status, DurationMs: milliseconds(elapsed),
		LimitMs: milliseconds(r.limit), CacheMs: milliseconds(r.cache), UserID: r.user, ClientIP: address,
		ResponseBytes: size, RateLimit: r.limited,
	})
}

func main() {
	limiters = []*limiter{
		newLimiter("generous", os.Getenv("LIMIT_PER_MINUTE"), time.Minute),
		newLimiter("api", os.Getenv("LIMIT_PER_HOUR"), time.Hour),
	}
	policies := make([]string, len(limiters))
	for i, one := range limiters {
		policies[i] = fmt.Sprintf(`"%s";q=%d;w=%d`, one.name, one.points, int(one.window.Seconds()))
	}
	policyHeader = strings.Join(policies, ", ")
	file, err := os.OpenFile(os.Getenv("ACCESS_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	access = &accessLog{buffer: bufio.NewWriter(file)}
	go func() {
		for range time.Tick(500 * time.Millisecond) {
			access.flush()
		}
	}()
	connection := pool.Get()
	if err := script.Load(connection); err != nil {
		log.Fatal(err)
	}
	connection.Close()
	prometheus.MustRegister(requestSeconds, requestsTotal, requestsInProgress, cacheHits, cacheMisses, decisions)
	mux := http.NewServeMux()
	mux.Handle("/api/metrics", promhttp.Handler())
	mux.HandleFunc("/", handle)
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stopped
		access.flush()
		os.Exit(0)
	}()
	log.Fatal(http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")), mux))
}
