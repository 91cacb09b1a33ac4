// A plant for tests: an OPC UA server with machines that count, and a loopback HTTP port that makes things go wrong.
//
// The counts outlive the process: each is written to the state file before OPC UA shows it, so a server that was killed
// goes on from where it was, as a machine does. What the HTTP port answers to GET /counts is the truth a test compares with.
//
// Started by buildscripts/realparts; see opcua.go there for what each option means.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import {
    DataType, IssuedIdentityToken, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes, UserNameIdentityToken,
    UserTokenPolicy, UserTokenType, VariantArrayType, Variant, coerceLocalizedText, nodesets, standardUnits
} from "node-opcua";

const options = JSON.parse(process.argv[2]);
const stateFile = path.join(options.dir, "state.json");

// ---- what the plant remembers -------------------------------------------------------------------------------------

const memory = fs.existsSync(stateFile) ? JSON.parse(fs.readFileSync(stateFile, "utf8")) : { values: {}, orders: {} };

function remember() {
    fs.writeFileSync(stateFile + ".new", JSON.stringify(memory));
    fs.renameSync(stateFile + ".new", stateFile);
}

// ---- the server ---------------------------------------------------------------------------------------------------

const logins = { accepted: 0, refused: 0 };

function store(name, trustAll) {
    return new OPCUACertificateManager({
        rootFolder: path.join(options.dir, name), automaticallyAcceptUnknownCertificate: trustAll, name
    });
}

const server = new OPCUAServer({
    host: "127.0.0.1",
    port: options.port,
    hostname: "127.0.0.1",
    resourcePath: "/plant",
    // With a file "updated" in the folder it is a firmware of a later day: one more namespace stands before the machines'.
    nodesets: [nodesets.standard, ...(fs.existsSync(path.join(options.dir, "updated")) ? [nodesets.di] : []),
        path.join(import.meta.dirname, "plant.nodeset.xml")],
    serverInfo: { applicationUri: options.applicationUri, productUri: "urn:plant", applicationName: { text: "plant" } },
    buildInfo: { productName: "plant", softwareVersion: "1" },
    certificateFile: options.certificateFile,
    privateKeyFile: options.privateKeyFile,
    serverCertificateManager: store("pki", !options.trustList),
    userCertificateManager: store("users", false),
    securityPolicies: (options.policies ?? ["None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
        .map((name) => SecurityPolicy[name]),
    securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
    allowAnonymous: options.anonymous,
    maxConnectionsPerEndpoint: 100,
    serverCapabilities: { maxSessions: 100, minSupportedSampleRate: 0, operationLimits: options.operationLimits },
    userManager: {
        isValidUser(name, password) {
            const ok = options.users[name] !== undefined && options.users[name] === password;
            logins[ok ? "accepted" : "refused"]++;
            return ok;
        }
    },
    isAuditing: false
});

await server.initialize();

// The library offers no issued tokens. Here one is let in that is the password of the user "token", decrypted as passwords are.
if (options.users.token !== undefined) {
    const policy = new UserTokenPolicy({ policyId: "jwt", tokenType: UserTokenType.IssuedToken, issuedTokenType: "http://opcfoundation.org/UA/UserToken#JWT" });
    for (const e of server.endpoints) for (const d of e.endpointDescriptions()) d.userIdentityTokens.push(policy);
    const authorized = server.isUserAuthorized.bind(server);
    server.isUserAuthorized = (channel, session, token, done) => {
        if (!(token instanceof IssuedIdentityToken)) return authorized(channel, session, token, done);
        const shown = new UserNameIdentityToken({ policyId: token.policyId, userName: "token", password: token.tokenData, encryptionAlgorithm: token.encryptionAlgorithm });
        Object.defineProperty(session, "userIdentityToken", { get: () => shown, set() {} }); // its rights are those of a named user
        server.userNameIdentityTokenAuthenticateUser(channel, session, policy, shown, done);
    };
}
const space = server.engine.addressSpace;
const own = space.getNamespace("urn:plant:machines");
const plant = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Plant", nodeId: "s=Plant" });

// ---- its nodes ----------------------------------------------------------------------------------------------------

const nodes = new Map();

function add(name, dataType, value, folder = plant) {
    if (memory.values[name] !== undefined) value = memory.values[name];
    const node = own.addVariable({
        componentOf: folder, browseName: name.split(".").pop(), nodeId: "s=" + name, dataType, minimumSamplingInterval: 0
    });
    nodes.set(name, node);
    memory.values[name] = value;
    node.setValueFromSource({ dataType, value });
    return node;
}

// change remembers a value first and shows it then.
function change(name, value) {
    memory.values[name] = value;
    const node = nodes.get(name);
    if (node) node.setValueFromSource({ dataType: node.dataType.value, value });
}

const machines = [];
for (let i = 1; i <= options.machines; i++) {
    const name = "Press" + i;
    machines.push(name);
    const folder = own.addObject({ componentOf: plant, browseName: name, nodeId: "s=" + name });
    add(name + ".Good", DataType.UInt32, 0, folder);
    add(name + ".Scrap", DataType.UInt32, 0, folder);
    add(name + ".Order", DataType.String, "", folder);
    add(name + ".State", DataType.String, "Stopped", folder);
}
for (let i = 0; i < options.counters; i++) add("Count." + i, DataType.UInt32, 0);

// A wide folder for browsers, with a way back to where it hangs, and a value with a unit.
if (options.tree) {
    const tree = own.addObject({ componentOf: plant, browseName: "Tree", nodeId: "s=Tree" });
    tree.addReference({ referenceType: "Organizes", nodeId: plant });
    for (let i = 0; i < options.tree; i++) {
        own.addVariable({ componentOf: tree, browseName: "Leaf" + i, nodeId: "s=Tree." + i, dataType: "UInt32",
            value: { dataType: DataType.UInt32, value: i } });
    }
    own.addAnalogDataItem({ componentOf: tree, browseName: "Oil/Temperature", nodeId: "s=Tree.Temperature", dataType: "Double",
        engineeringUnits: standardUnits.degree_celsius, engineeringUnitsRange: { low: 0, high: 200 },
        accessLevel: "CurrentRead", userAccessLevel: "CurrentRead", value: { dataType: DataType.Double, value: 71.5 } });
}

// download loads a machine's program anew: its nodes get other ids under the names that they had.
let downloads = 0;
function download(machine) {
    downloads++;
    const folder = space.findNode("ns=" + own.index + ";s=" + machine);
    for (const [name, node] of [...nodes]) {
        if (!name.startsWith(machine + ".")) continue;
        const dataType = node.dataType.value, browseName = node.browseName.name;
        space.deleteNode(node);
        const again = own.addVariable({
            componentOf: folder, browseName, nodeId: "s=Download" + downloads + "." + name, dataType, minimumSamplingInterval: 0
        });
        again.setValueFromSource({ dataType, value: memory.values[name] });
        nodes.set(name, again);
    }
}

// One node for each type a test sets by POST /set.
for (const type of ["Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String",
    "DateTime", "Guid", "ByteString", "LocalizedText", "QualifiedName", "NodeId", "StatusCode"]) {
    const node = own.addVariable({ componentOf: plant, browseName: type, nodeId: "s=Type." + type, dataType: type, minimumSamplingInterval: 0 });
    nodes.set("Type." + type, node);
}
for (const type of ["Int32", "String", "Double"]) {
    const node = own.addVariable({
        componentOf: plant, browseName: type + "s", nodeId: "s=Array." + type, dataType: type, valueRank: -3, minimumSamplingInterval: 0
    });
    nodes.set("Array." + type, node);
}
// A structure that only this server knows.
const recipe = space.findDataType("Recipe", own.index);
nodes.set("Type.Recipe", own.addVariable({
    componentOf: plant, browseName: "Recipe", nodeId: "s=Type.Recipe", dataType: recipe, minimumSamplingInterval: 0
}));
setRecipe({ name: "blue", speed: 1.5 });

function setRecipe(fields) {
    nodes.get("Type.Recipe").setValueFromSource({
        dataType: DataType.ExtensionObject, value: space.constructExtensionObject(recipe, fields)
    });
}

// A structure with everything that structures can have, alone and in a list.
const batch = space.findDataType("Batch", own.index);
for (const [name, valueRank] of [["Type.Batch", -1], ["Type.Batches", 1]]) {
    nodes.set(name, own.addVariable({
        componentOf: plant, browseName: name.split(".").pop(), nodeId: "s=" + name, dataType: batch, valueRank, minimumSamplingInterval: 0
    }));
}

function setBatches(list) {
    const value = list.map((fields) => space.constructExtensionObject(batch, fields));
    nodes.get("Type.Batch").setValueFromSource({ dataType: DataType.ExtensionObject, value: value[0] });
    nodes.get("Type.Batches").setValueFromSource({ dataType: DataType.ExtensionObject, arrayType: VariantArrayType.Array, value });
}

// set shows any value of any type; texts stand for what JSON cannot say.
function set({ node, type, value, array, status, sourceTime }) {
    const items = (array ? value : [value]).map((v) => coerce(type, v));
    const variant = value === null
        ? new Variant({ dataType: DataType.Null })
        : new Variant({ dataType: type, arrayType: array ? VariantArrayType.Array : VariantArrayType.Scalar, value: array ? items : items[0] });
    nodes.get(node).setValueFromSource(variant, StatusCodes[status || "Good"], sourceTime ? new Date(sourceTime) : new Date());
}

function coerce(type, v) {
    switch (type) {
        case "Int64":
        case "UInt64": {
            const bits = BigInt.asUintN(64, BigInt(v));
            return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
        }
        case "Float":
        case "Double": return Number(v);
        case "DateTime": return new Date(v);
        case "ByteString": return Buffer.from(v, "base64");
        case "LocalizedText": return coerceLocalizedText(v);
        case "StatusCode": return StatusCodes[v];
        default: return v;
    }
}

// ---- what machines do ---------------------------------------------------------------------------------------------

// count books pieces of one machine, for the order it runs.
function count(machine, good, scrap) {
    const order = memory.values[machine + ".Order"];
    const sums = ((memory.orders[machine] ??= {})[order] ??= { good: 0, scrap: 0 });
    sums.good += good;
    sums.scrap += scrap;
    memory.values[machine + ".Good"] += good;
    memory.values[machine + ".Scrap"] += scrap;
    remember();
    if (good) change(machine + ".Good", memory.values[machine + ".Good"]);
    if (scrap) change(machine + ".Scrap", memory.values[machine + ".Scrap"]);
}

// tick adds one to each of the loss proof's counters.
function tick(times) {
    for (let n = 0; n < times; n++) {
        for (let i = 0; i < options.counters; i++) memory.values["Count." + i]++;
        remember();
        for (let i = 0; i < options.counters; i++) if (nodes.has("Count." + i)) change("Count." + i, memory.values["Count." + i]);
    }
}

let ticking, running;
if (memory.ticking) startTicking(memory.ticking);
if (memory.running) startRunning(memory.running);

function startTicking(period) {
    clearInterval(ticking);
    memory.ticking = period;
    remember();
    if (period > 0) ticking = setInterval(() => tick(1), period);
}

function startRunning({ period, scrapEvery }) {
    clearInterval(running);
    memory.running = { period, scrapEvery };
    remember();
    for (const m of machines) change(m + ".State", period > 0 ? "Running" : "Stopped");
    let n = 0;
    if (period > 0) running = setInterval(() => {
        n++;
        for (const m of machines) scrapEvery && n % scrapEvery === 0 ? count(m, 0, 1) : count(m, 1, 0);
    }, period);
}

function truth() {
    const machine = {};
    for (const m of machines) machine[m] = {
        good: memory.values[m + ".Good"], scrap: memory.values[m + ".Scrap"], order: memory.values[m + ".Order"],
        state: memory.values[m + ".State"], orders: memory.orders[m] ?? {}
    };
    const counters = {};
    for (let i = 0; i < options.counters; i++) counters["Count." + i] = memory.values["Count." + i];
    return { machines: machine, counters };
}

// ---- what goes wrong ----------------------------------------------------------------------------------------------

function sessions() {
    return Object.values(server.engine._sessions);
}

async function closeSessions(deleteSubscriptions) {
    for (const s of sessions()) server.engine.closeSession(s.authenticationToken, deleteSubscriptions, "Terminated", "");
}

function endSubscriptions() {
    for (const s of sessions()) for (const sub of [...s.publishEngine.subscriptions]) sub.terminate();
}

function subscriptions() {
    return sessions().flatMap((s) => s.publishEngine.subscriptions).map((s) => ({
        id: s.id, publishingInterval: s.publishingInterval, lifetimeCount: s.lifeTimeCount, keepAliveCount: s.maxKeepAliveCount,
        items: s.monitoredItemCount
    }));
}

const actions = {
    "GET /counts": () => truth(),
    "GET /sessions": () => ({ sessions: sessions().length, subscriptions: subscriptions() }),
    "GET /logins": () => logins,
    "POST /set": (b) => set(b),
    "POST /batches": (b) => setBatches(b.list),
    "POST /recipe": (b) => setRecipe(b),
    "POST /change": (b) => { change(b.node, b.value); remember(); },
    "POST /order": (b) => { change(b.machine + ".Order", b.order); remember(); },
    "POST /count": (b) => count(b.machine, b.good ?? 0, b.scrap ?? 0),
    "POST /run": (b) => startRunning(b),
    "POST /tick": (b) => startTicking(b.period),
    "POST /burst": (b) => tick(b.times),
    "POST /remove": (b) => { space.deleteNode(nodes.get(b.node)); nodes.delete(b.node); },
    "POST /download": (b) => download(b.machine),
    "POST /add": (b) => { add(b.node, DataType.UInt32, 0); },
    "POST /historise": (b) => { space.installHistoricalDataNode(nodes.get(b.node), { maxOnlineValues: 10000 }); },
    "POST /close-sessions": (b) => closeSessions(b.deleteSubscriptions === true),
    "POST /end-subscriptions": () => endSubscriptions()
};

await server.start();
remember();

http.createServer((req, res) => {
    let body = "";
    req.on("data", (d) => (body += d));
    req.on("end", async () => {
        try {
            const action = actions[req.method + " " + req.url];
            if (!action) throw new Error("no such action: " + req.method + " " + req.url);
            const answer = (await action(body ? JSON.parse(body) : {})) ?? {};
            res.setHeader("content-type", "application/json");
            res.end(JSON.stringify(answer));
        } catch (e) {
            res.statusCode = 400;
            res.end(String(e.stack ?? e));
        }
    });
}).listen(options.controlPort, "127.0.0.1");
