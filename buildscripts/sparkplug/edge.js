// A Sparkplug B edge node for tests: it counts parts, stores and forwards, and does wrong what a test tells it to.
//
// It names one host as its primary and says nothing while that is away: parts made meanwhile are stored, and sent as history
// after the next birth, behind the last ones that were sent before (it cannot know whether those arrived). What the HTTP port
// answers to GET /state is the truth that a test compares with.
//
// Started by buildscripts/realparts; see sparkplug.go there for what each option means.

import http from "node:http";
import { createRequire } from "node:module";
import mqtt from "mqtt";

const require = createRequire(import.meta.url);
const { encodePayload, decodePayload } = require("sparkplug-payload").get("spBv1.0");
const Raw = require("sparkplug-payload/lib/sparkplugPayloadProto.js").org.eclipse.tahu.protobuf.Payload;
const Long = require("long");

const options = JSON.parse(process.argv[2]);
const topic = (kind, device) => `spBv1.0/${options.group}/${kind}/${options.node}` + (device ? `/${device}` : "");
const stateTopic = options.oldState ? `STATE/${options.primaryHost}` : `spBv1.0/STATE/${options.primaryHost}`;

// ---- what the node knows ------------------------------------------------------------------------------------------

const GOOD = 1, PART = 2; // aliases
let client, bdSeq = -1, seq = 0, born = false, hostOnline = false, hostTime = -1, lastTime = 0, stopped = false;
let stored = [], sent = [], extra = [];
const state = { made: 0, births: 0, rebirthsAsked: 0, live: 0, flushed: 0 };
const fault = { skip: 0, ignoreRebirth: false, unknownAlias: false, silentBirths: false };

const nextSeq = () => { const s = seq; seq = (seq + 1) % 256; return s; };

function stamp() {
    lastTime = Math.max(Date.now(), lastTime + 1); // each part has a time of its own
    return lastTime;
}

// ---- encoding -----------------------------------------------------------------------------------------------------

// JSON has no 64-bit numbers, no bytes and no NaN.
function revive(v) {
    if (Array.isArray(v)) return v.map(revive);
    if (v === null || typeof v !== "object") return v;
    if ("$long" in v) return Long.fromString(v.$long, false);
    if ("$ulong" in v) return Long.fromString(v.$ulong, true);
    if ("$bytes" in v) return Buffer.from(v.$bytes, "base64");
    if ("$num" in v) return Number(v.$num);
    return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, revive(x)]));
}

// The library knows no arrays: metrics of those types come as the fields of the format.
function encode(message, raw = []) {
    const bytes = encodePayload(message);
    if (raw.length === 0) return Buffer.from(bytes);
    const whole = Raw.decode(bytes);
    for (const m of raw) whole.metrics.push(Raw.Metric.create(m));
    return Buffer.from(Raw.encode(whole).finish());
}

function publish(kind, device, bytes, qos = 0) {
    return new Promise((resolve) => {
        if (!client?.connected) return resolve(false);
        client.publish(topic(kind, device), bytes, { qos }, (err) => resolve(!err));
    });
}

// ---- the session --------------------------------------------------------------------------------------------------

const deathMetrics = () => [{ name: "bdSeq", type: "Int64", value: bdSeq }];

function connect() {
    if (stopped) return;
    bdSeq = (bdSeq + 1) % 256;
    born = false;
    if (options.primaryHost) hostOnline = false;
    else hostOnline = true;
    const own = client = mqtt.connect(options.broker, {
        clientId: `edge-${options.group}-${options.node}`, clean: true, reconnectPeriod: 0, keepalive: 10,
        will: { topic: topic("NDEATH"), payload: encode({ timestamp: Date.now(), metrics: deathMetrics() }), qos: 1, retain: false }
    });
    own.on("error", () => {});
    own.on("close", () => {
        if (client !== own) return;
        born = false;
        client = undefined;
        setTimeout(connect, 100);
    });
    own.on("message", (t, b) => { if (client === own) heard(t, b); });
    own.on("connect", () => {
        const filters = [topic("NCMD"), topic("DCMD", "#")];
        if (options.primaryHost) filters.push(stateTopic);
        own.subscribe(filters, { qos: 1 }, () => { if (client === own && !options.primaryHost) birth(true); });
    });
}

function heard(t, b) {
    if (t === topic("NCMD")) {
        const asked = decodePayload(b).metrics?.some((m) => m.name === "Node Control/Rebirth" && m.value === true);
        if (!asked) return;
        state.rebirthsAsked++;
        if (!fault.ignoreRebirth && born) birth(false);
        return;
    }
    if (t !== stateTopic) return;
    let online, time = 0;
    if (options.oldState) online = b.toString() === "ONLINE";
    else ({ online, timestamp: time } = JSON.parse(b.toString()));
    if (time < hostTime) return; // an old will
    const renewed = hostOnline && online && time > hostTime;
    hostTime = time;
    if (online && !renewed) {
        if (!hostOnline) { hostOnline = true; birth(true); }
    } else if (hostOnline) {
        restart(); // the host went away, or has been away
    }
}

// restart ends the session with a death and begins another one.
function restart() {
    const own = client;
    client = undefined;
    born = false;
    hostOnline = false;
    let over = false;
    const end = () => {
        if (over) return;
        over = true;
        own.end(true, {}, () => {});
        connect();
    };
    own.publish(topic("NDEATH"), encode({ timestamp: Date.now(), metrics: deathMetrics() }), { qos: 1 }, () => own.end(false, {}, end));
    setTimeout(end, 1000); // the broker may be gone as well
}

function birth(flushAfter) {
    seq = 0;
    const time = Date.now();
    const count = (alias) => ({ name: "Counts/Good", alias, timestamp: time, type: "Int64", value: state.made });
    const metrics = [
        ...deathMetrics(), { name: "Node Control/Rebirth", type: "Boolean", value: false },
        count(GOOD), { name: "PartDone", alias: PART, timestamp: time, type: "Int64", value: state.made },
        ...extra.filter((m) => !m.raw).map((m) => m.metric)
    ];
    born = true;
    state.births++;
    publish("NBIRTH", "", encode({ timestamp: time, seq: nextSeq(), metrics }, extra.filter((m) => m.raw).map((m) => m.metric)));
    for (const [i, d] of (options.devices ?? []).entries())
        publish("DBIRTH", d, encode({ timestamp: time, seq: nextSeq(), metrics: [count(100 + i)] }));
    if (flushAfter) flush();
}

// flush sends what was stored, and before it again what was sent last.
function flush() {
    const list = [...sent.slice(-(options.rolling ?? 0) || sent.length), ...stored];
    sent = [...sent, ...stored].slice(-(options.rolling ?? 0) || undefined);
    if (!options.rolling) sent = [];
    stored = [];
    for (let i = 0; i < list.length; i += 25) {
        const metrics = list.slice(i, i + 25).flatMap((p) => values(p, true));
        state.flushed += Math.min(25, list.length - i);
        publish("NDATA", "", encode({ timestamp: Date.now(), seq: nextSeq(), metrics }));
    }
}

const values = (p, isHistorical) => [GOOD, PART].map((alias) => ({ alias, timestamp: p.time, type: "Int64", value: p.number, isHistorical }));

async function produce(n) {
    for (let i = 0; i < n; i++) {
        const p = { number: ++state.made, time: stamp() };
        if (!born || !client?.connected) { stored.push(p); continue; }
        sent.push(p);
        sent = options.rolling ? sent.slice(-options.rolling) : [];
        state.live++;
        if (fault.skip > 0) { fault.skip--; nextSeq(); }
        const metrics = values(p, false);
        if (fault.unknownAlias) { fault.unknownAlias = false; metrics.push({ alias: 999, timestamp: p.time, type: "Int64", value: p.number }); }
        await publish("NDATA", "", encode({ timestamp: p.time, seq: nextSeq(), metrics }));
    }
}

// ---- the control port ---------------------------------------------------------------------------------------------

const actions = {
    "/produce": async (b) => { await produce(b.n); },
    "/fault": async (b) => { Object.assign(fault, b); },
    // A birth that nobody hears of: what follows is data before its birth.
    "/forget": async () => { extra = []; },
    "/extra": async (b) => { extra = revive(b.metrics).map((m) => ({ raw: !!b.raw, metric: m })).concat(b.add ? extra : []); if (born) birth(false); },
    "/say": async (b) => {
        const message = { timestamp: Date.now(), metrics: revive(b.metrics ?? []) };
        if (!b.noSeq) message.seq = b.seq ?? nextSeq();
        await publish(b.type, b.device, encode(message, revive(b.raw ?? [])));
    },
    "/bytes": async (b) => { await publish(b.type, b.device, Buffer.from(b.bytes, "base64")); },
    "/restart": async () => { restart(); },
    "/cut": async () => { client?.stream.destroy(); }
};

http.createServer(async (req, res) => {
    let body = "";
    for await (const piece of req) body += piece;
    try {
        if (req.method === "GET") {
            res.end(JSON.stringify({ ...state, born, bdSeq, seq, hostOnline, stored: stored.length }));
            return;
        }
        await actions[req.url](body ? JSON.parse(body) : {});
        res.end("{}");
    } catch (err) {
        res.statusCode = 500;
        res.end(String(err?.stack ?? err));
    }
}).listen(options.controlPort, "127.0.0.1");

connect();
