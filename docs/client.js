// A client of the gateway for a browser, to be copied and changed: one socket, replies matched by extID, back after a cut.
// What it relies on is in protocol.md. Node runs it too (22; 20 with --experimental-websocket).

const READS = new Set(["MngGetCalendarEvent", "MngGetCalendarEventsByFilter", "HealthCheck"]);
const SESSION = new Set(["MngLogin", "MngLogout"]);
const TRIES_MAX = 5;
const BACK_OFF_MS = 500;
const BACK_OFF_MAX_MS = 30_000;
const comesBack = (code) => [1001, 1006, 1011, 1012].includes(code) || (code >= 4000 && code <= 4499);

export class Gateway {
  // `ended(code)` is called when the socket is closed and does not come back by itself: sign in anew, or see protocol.md for the code.
  constructor(url, ended = () => {}) {
    Object.assign(this, { url, ended, socket: null, token: null, number: 0, waiting: new Map(), backOffMs: BACK_OFF_MS, drainMs: 0 });
  }

  // The session's data, its token among it. Send commands when this has resolved: they do not wait for a sign-in.
  async signIn(login, password) {
    this.token = null;
    if (this.socket?.readyState !== WebSocket.OPEN) await this.open();
    const session = await this.command("MngLogin", { login, password });
    this.token = session.token;
    return session;
  }

  // The reply's data. Rejects with the reply: `error`, `message`, `field`, and `outcome`: whether it may have been done all the same.
  // A write has a key of its own, so that it may be sent again when its answer is lost, and is done once.
  command(command, data = {}) {
    const frame = { command, extID: String(++this.number), data };
    if (!READS.has(command) && !SESSION.has(command)) frame.idempotencyKey = crypto.randomUUID(); // needs https, or localhost
    return new Promise((resolve, reject) => {
      this.waiting.set(frame.extID, { frame, resolve, reject, tries: 0, lost: false });
      this.send(frame);
    });
  }

  open() {
    const proof = this.token === null ? [] : [`bearer.${this.token}`];
    const socket = new WebSocket(this.url, ["crm-gateway.v1.json", ...proof]);
    let opened = false;
    let over = false;
    const close = (code) => {
      if (!over && socket === this.socket) this.closed(code, opened);
      over = true;
    };
    this.socket = socket;
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = ({ code }) => close(code);
    return new Promise((resolve, reject) => {
      socket.onopen = () => {
        opened = true;
        resolve();
      };
      socket.onerror = () => {
        reject(new Error(`no connection to ${this.url}`));
        close(1006); // Node 20 tells no more of a connection that failed
      };
    });
  }

  send(frame) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  take(message) {
    if (message.event === "server:drain") this.drainMs = message.data.retry_after_ms;
    const sent = this.waiting.get(message.extID);
    if (message.event !== undefined || sent === undefined) return;
    this.backOffMs = BACK_OFF_MS;
    if (message.outcome === "unknown") sent.lost = true;
    const again = message.retry_after_ms !== undefined && (message.outcome === "not_executed" || sent.frame.idempotencyKey);
    if (again && ++sent.tries < TRIES_MAX) {
      setTimeout(() => this.waiting.get(message.extID) === sent && this.send(sent.frame), message.retry_after_ms);
    } else if (message.status === 200) {
      this.waiting.delete(message.extID);
      sent.resolve(message.data);
    } else {
      this.giveUp(sent, message);
    }
  }

  // What failed 5xx says nothing of an earlier try whose answer was lost.
  giveUp(sent, reply) {
    this.waiting.delete(sent.frame.extID);
    sent.reject(sent.lost && !(reply.status < 500) ? { ...reply, outcome: "unknown" } : reply);
  }

  // What is unanswered: not executed after 1012, else nobody knows. Reads and keyed writes are sent again all the same.
  closed(code, opened) {
    const back = comesBack(code) && this.token !== null;
    for (const sent of [...this.waiting.values()]) {
      if (opened && code !== 1012) sent.lost = true;
      if (opened) sent.tries++;
      if (back && !SESSION.has(sent.frame.command) && sent.tries < TRIES_MAX) continue;
      const message = `the socket was closed with ${code}`;
      this.giveUp(sent, { extID: sent.frame.extID, error: "CLOSED", message, outcome: "not_executed" });
    }
    if (!back) return this.ended(code);
    const waitMs = Math.max(this.drainMs, this.backOffMs * (0.5 + Math.random() / 2));
    this.drainMs = 0;
    this.backOffMs = Math.min(2 * this.backOffMs, BACK_OFF_MAX_MS);
    setTimeout(() => this.comeBack(), waitMs);
  }

  async comeBack() {
    if (this.token === null) return; // somebody signs in anew
    try {
      await this.open();
    } catch {
      return; // `closed` goes on
    }
    for (const { frame } of this.waiting.values()) this.send(frame);
  }
}
