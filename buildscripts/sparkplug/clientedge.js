// A Sparkplug B edge node for tests that leaves the protocol to a client library: births, numbers and compression are the
// library's own. It does nothing wrong, and does not store.
//
// Started by buildscripts/realparts; see sparkplug.go there for what each option means.

import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const options = JSON.parse(process.argv[2]);
let made = 0, births = 0, last = 0;

const client = require("sparkplug-client").newClient({
    serverUrl: options.broker, username: "x", password: "x", groupId: options.group, edgeNode: options.node,
    clientId: `client-${options.group}-${options.node}`, publishDeath: true, version: "spBv1.0"
});

const metrics = () => {
    last = Math.max(Date.now(), last + 1);
    return [{ name: "Counts/Good", value: made, type: "Int32", timestamp: last }, { name: "PartDone", value: made, type: "Int32", timestamp: last }];
};

client.on("error", () => {});
client.on("birth", () => {
    births++;
    client.publishNodeBirth({ timestamp: Date.now(), metrics: metrics() }, { compress: options.compress, algorithm: "GZIP" });
    client.publishDeviceBirth("press", { timestamp: Date.now(), metrics: metrics() }, { compress: options.compress });
});
client.on("ncmd", (payload) => {
    if (payload.metrics?.some((m) => m.name === "Node Control/Rebirth" && m.value)) client.emit("birth");
});

http.createServer(async (req, res) => {
    let body = "";
    for await (const piece of req) body += piece;
    if (req.method === "POST") {
        const { n } = JSON.parse(body);
        for (let i = 0; i < n; i++) {
            made++;
            client.publishNodeData({ timestamp: Date.now(), metrics: metrics() }, { compress: options.compress });
            client.publishDeviceData("press", { timestamp: Date.now(), metrics: metrics() }, { compress: options.compress, algorithm: "GZIP" });
        }
    }
    res.end(JSON.stringify({ made, births, born: births > 0 }));
}).listen(options.controlPort, "127.0.0.1");
