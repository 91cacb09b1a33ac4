// A Sparkplug B host for tests: it reads what edge nodes publish with a library that is not ours, and shows it as JSON on its
// HTTP port. It asks for births and says that it is online or not when a test tells it to.
//
// Started by buildscripts/realparts; see sparkplug.go there for what each option means.

import http from "node:http";
import { createRequire } from "node:module";
import mqtt from "mqtt";

const require = createRequire(import.meta.url);
const { encodePayload, decodePayload } = require("sparkplug-payload").get("spBv1.0");

const options = JSON.parse(process.argv[2]);
const seen = [];
const client = mqtt.connect(options.broker, { clientId: "host-" + options.controlPort, clean: true, reconnectPeriod: 100 });
client.on("error", () => {});
client.on("connect", () => client.subscribe(["spBv1.0/#"], { qos: 1 }));
client.on("message", (topic, bytes, packet) => {
    const parts = topic.split("/");
    if (parts[1] === "STATE") { seen.push({ topic, text: bytes.toString(), retained: packet.retain }); return; }
    seen.push({ topic, qos: packet.qos, retained: packet.retain, payload: decodePayload(bytes) });
});

const actions = {
    "/rebirth": (b) => client.publish(`spBv1.0/${b.group}/NCMD/${b.node}`, Buffer.from(encodePayload({
        timestamp: Date.now(), metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: true }]
    }))),
    "/state": (b) => client.publish(`spBv1.0/STATE/${b.id}`, JSON.stringify({ online: b.online, timestamp: b.timestamp }), { qos: 1, retain: true })
};

http.createServer(async (req, res) => {
    let body = "";
    for await (const piece of req) body += piece;
    try {
        if (req.method === "GET") {
            res.end(JSON.stringify({ connected: client.connected, seen: JSON.parse(JSON.stringify(seen, (k, v) => (require("long").isLong(v) ? v.toString() : v))) }));
            return;
        }
        await actions[req.url](JSON.parse(body));
        res.end("{}");
    } catch (err) {
        res.statusCode = 500;
        res.end(String(err?.stack ?? err));
    }
}).listen(options.controlPort, "127.0.0.1");
