"use strict";

// Who is signed in. The access token is kept in sessionStorage: it survives a reload, not the tab, and no other
// site or tab sees it. It lives an hour; the refresh token that renews it is kept in memory alone, so that whoever
// gets at the storage of this device gets an hour at the most.
const session = (() => {
  const KEY = "mastery-access-token";
  const RENEW_BEFORE_MS = 120_000;
  let refreshToken = null;
  let renewAt = Infinity;
  let renewing = null;

  async function post(path, body) {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = response.status === 204 ? {} : await response.json();
    if (!response.ok) throw new Error(answer.detail || "That did not work.");
    return answer;
  }

  function keep(answer) {
    sessionStorage.setItem(KEY, answer.accessToken);
    refreshToken = answer.refreshToken;
    renewAt = Date.now() + answer.expiresIn * 1000 - RENEW_BEFORE_MS;
  }

  return {
    get active() {
      return sessionStorage.getItem(KEY) !== null;
    },

    async signIn(email, password) {
      const answer = await post("/api/auth/login", { email, password });
      keep(answer);
      if (answer.user.role !== "admin") {
        await this.end();
        throw new Error("This account is not an administrator's.");
      }
    },

    useToken(token) {
      sessionStorage.setItem(KEY, token);
    },

    async get(path) {
      if (refreshToken && Date.now() > renewAt) {
        renewing ??= post("/api/auth/refresh", { refreshToken })
          .then(keep)
          .catch(() => { renewAt = Infinity; })
          .finally(() => { renewing = null; });
        await renewing;
      }
      return fetch(path, {
        headers: { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` },
        cache: "no-store",
        signal: AbortSignal.timeout(4000),
      });
    },

    async end() {
      const spent = refreshToken;
      sessionStorage.removeItem(KEY);
      refreshToken = null;
      renewAt = Infinity;
      if (spent) await post("/api/auth/logout", { refreshToken: spent }).catch(() => {});
    },
  };
})();
