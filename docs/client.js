// A client of the gateway for a browser, to be copied and changed: one socket, replies matched by extID, back after a cut.
// What it relies on is in protocol.md. Node runs it too (22; 20 with --experimental-websocket).

const READS = new Set(["MngGetCalendarEvent", "MngGetCalendarEventsByFilter", "HealthCheck"]);
const SESSION = new Set(["MngLogin", "MngLogout"]);
const TRIES_MAX = 5;
const comesBack = (code) => [1001, 1006, 1011, 1012].includes(code) || (code >= 4000 && code <= 4499);

export class Gateway {
  // `ended(code)` is called when the socket is closed and nothing but a change (of the session, say) brings it back.
  constructor(url, ended = () => {}) {
    Object.assign(this, { url, ended, socket: null, token: null, number: 0, waiting: new Map(), backOffMs: 500, drainMs: 0 });
  }

  // The session's data, its token among it. Send commands when this has resolved: they do not wait for a sign-in.
  async signIn(login, password) {
    await this.open();
    const session = await this.command("MngLogin", { login, password });
    this.token = session.token;
    return session;
  }

  // The reply's data. Rejects with the reply: `error`, `message`, `field`, and `outcome`, which says whether anything was written.
  // A write has a key of its own, so that it may be sent again when its answer is lost, and is done once.
  command(command, data = {}) {
    const frame = { command, extID: String(++this.number), data };
    if (!READS.has(command) && !SESSION.has(command)) frame.idempotencyKey = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      this.waiting.set(frame.extID, { frame, resolve, reject, tries: 0 });
      this.send(frame);
    });
  }

  open() {
    const proof = this.token === null ? [] : [`bearer.${this.token}`];
    const socket = new WebSocket(this.url, ["crm-gateway.v1.json", ...proof]);
    let over = false;
    const close = (code) => {
      if (!over) this.closed(code);
      over = true;
    };
    this.socket = socket;
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = ({ code }) => close(code);
    return new Promise((resolve, reject) => {
      socket.onopen = () => {
        this.backOffMs = 500;
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
    const again = message.retry_after_ms !== undefined && (message.outcome === "not_executed" || sent.frame.idempotencyKey);
    if (again && ++sent.tries < TRIES_MAX) {
      setTimeout(() => this.send(sent.frame), message.retry_after_ms);
      return;
    }
    this.waiting.delete(message.extID);
    if (message.status === 200) sent.resolve(message.data);
    else sent.reject(message);
  }

  // What is unanswered: not executed after 1012, else nobody knows. Reads and keyed writes are sent again all the same.
  closed(code) {
    const back = comesBack(code) && this.token !== null;
    for (const [extID, { frame, reject }] of this.waiting) {
      if (back && !SESSION.has(frame.command)) continue;
      this.waiting.delete(extID);
      reject({ extID, error: "CLOSED", message: `the socket was closed with ${code}`, outcome: code === 1012 ? "not_executed" : "unknown" });
    }
    if (!back) return this.ended(code);
    const waitMs = Math.max(this.drainMs, this.backOffMs * (0.5 + Math.random() / 2));
    this.drainMs = 0;
    this.backOffMs = Math.min(2 * this.backOffMs, 30_000);
    setTimeout(() => this.open().then(() => this.waiting.forEach(({ frame }) => this.send(frame)), () => {}), waitMs);
  }
}
