// The main job by a generated client: openapi-typescript makes the types, openapi-fetch sends. Nothing of it is written by hand.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const baseUrl = process.env["MASTERY"]!;
const clientOf = (token?: string) =>
  createClient<paths>({ baseUrl, ...(token && { headers: { Authorization: `Bearer ${token}` } }) });

/** The answer of a call that has to succeed. */
function given<Data>(result: { data?: Data; error?: unknown; response: Response }): Data {
  if (result.data === undefined) throw new Error(`${result.response.status}: ${JSON.stringify(result.error)}`);
  return result.data;
}

// An administrator makes a class of two decks, and publishes it.
const admin = clientOf(process.env["ADMIN"]!);
const made = given(await admin.POST("/api/admin/classes", { body: { name: "Generated" } }));
const deckIds: string[] = [];
for (const name of ["One", "Two"]) {
  const deck = given(
    await admin.POST("/api/admin/decks", { body: { classId: made.id, name, isPublished: true } }),
  );
  deckIds.push(deck.id);
  const cards = [0, 1].map((n) => ({ question: `${name} ${n}?`, answer: String(n), category: "numbers" }));
  const params = { path: { deckId: deck.id } };
  const imported = given(await admin.POST("/api/admin/decks/{deckId}/import", { params, body: cards }));
  assert.deepEqual([2, 0], [imported.created, imported.unchanged]);
  // The same and one more from a spreadsheet, uploaded as a form.
  const csv = `Front,Back,Tags\n${name} 0?,0,numbers\n${name} 2?,2,numbers\n`;
  const form = new FormData();
  form.set("file", new File([csv], "more.csv"));
  const uploaded = given(
    await admin.POST("/api/admin/decks/{deckId}/import/form", {
      params,
      body: { file: csv },
      bodySerializer: () => form,
    }),
  );
  assert.deepEqual([1, 1, "comma"], [uploaded.created, uploaded.unchanged, uploaded.dialect]);
}
given(
  await admin.PATCH("/api/admin/classes/{classId}", {
    params: { path: { classId: made.id } },
    body: { isPublished: true },
  }),
);

// A student comes.
const stranger = clientOf();
const account = { email: `${randomUUID()}@example.com`, password: "correct horse battery" };
given(await stranger.POST("/api/auth/register", { body: { ...account, name: "Ada" } }));
const wrong = await stranger.POST("/api/auth/login", { body: { ...account, password: "something else" } });
const expected: components["schemas"]["ErrorCode"] = "wrong_credentials";
assert.equal(wrong.error?.code, expected);
const { refreshToken } = given(await stranger.POST("/api/auth/login", { body: account }));
const { accessToken } = given(await stranger.POST("/api/auth/refresh", { body: { refreshToken } }));

const student = clientOf(accessToken);
const classes: components["schemas"]["ListedClass"][] = [];
let cursor: string | null | undefined;
do {
  const page = given(await student.GET("/api/classes", { params: { query: { limit: 3, ...(cursor && { cursor }) } } }));
  classes.push(...page.classes);
  cursor = page.nextCursor;
} while (cursor !== null);
assert.equal(classes.find((entry) => entry.id === made.id)?.cardCount, 6);

// Several decks: a list in the query.
const path = { classId: made.id };
const query = { mode: "all", decks: deckIds } as const;
const study = given(
  await student.GET("/api/classes/{classId}/study", { params: { path, query: { ...query, limit: 4 } } }),
);
assert.deepEqual([6, 4, "numbers"], [study.totalCards, study.flashcards.length, study.flashcards[0]?.category]);
const rest = given(
  await student.GET("/api/classes/{classId}/study", {
    params: { path, query: { ...query, cursor: study.nextCursor! } },
  }),
);
const cards = [...study.flashcards, ...rest.flashcards];
assert.deepEqual([6, null], [cards.length, rest.nextCursor]);

const { sessionId } = given(await student.POST("/api/sessions", { body: { deckIds } }));
const flashcardId = cards[0]!.id;
const header = { "Idempotency-Key": randomUUID() };
let rated: components["schemas"]["CardProgress"] | undefined;
for (const _ of [1, 2]) {
  // Repeated: counts once.
  rated = given(
    await student.PUT("/api/progress/cards/{flashcardId}", {
      params: { path: { flashcardId }, header },
      body: { confidenceLevel: 4, sessionId, responseTime: 1500 },
    }),
  );
}
assert.deepEqual([rated?.timesSeen, rated?.masteryStatus], [1, "mastered"]);
const ratings = cards.slice(1).map((card) => ({ flashcardId: card.id, confidenceLevel: 2 }));
assert.equal(given(await student.POST("/api/progress/cards", { body: { ratings } })).progress.length, 5);
const { session } = given(
  await student.POST("/api/sessions/{sessionId}/end", { params: { path: { sessionId } } }),
);
assert.deepEqual([session.cardsStudied, session.averageConfidence], [1, 4]);

given(await student.PUT("/api/bookmarks/{flashcardId}", { params: { path: { flashcardId } } }));
const changes = given(await student.GET("/api/progress"));
assert.equal(changes.progress.length, 6);
const since = changes.until!;
assert.deepEqual(given(await student.GET("/api/progress", { params: { query: { since } } })).progress, []);
assert.equal(given(await student.GET("/api/study/due")).dueCards, 0);
assert.equal(given(await student.GET("/api/stats")).totalCardsStudied, 6);
const refused = await student.GET("/api/admin/analytics/users");
assert.equal(refused.error?.code, "forbidden");

const { users } = given(await admin.GET("/api/admin/analytics/users"));
assert.ok(users.some((user) => user.email === account.email));
