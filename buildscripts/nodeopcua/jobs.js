// Machines for tests that take job orders (OPC 10031-4) or orders written into nodes, and a loopback HTTP port that makes
// things go wrong.
//
// What a machine was told outlives the process: it is in the state file before an answer leaves. GET /machines is the truth
// that a test compares with; its "effects" are all calls that did something, in their order.
//
// Started by buildscripts/realparts; see jobs.go there for what each option means.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import {
    DataType, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes, Variant, VariantArrayType,
    coerceLocalizedText, nodesets
} from "node-opcua";

const options = JSON.parse(process.argv[2]);
const stateFile = path.join(options.dir, "jobs.json");
const memory = fs.existsSync(stateFile) ? JSON.parse(fs.readFileSync(stateFile, "utf8")) : { machines: {} };

function remember() {
    fs.writeFileSync(stateFile + ".new", JSON.stringify(memory));
    fs.renameSync(stateFile + ".new", stateFile);
}

// ---- the server ---------------------------------------------------------------------------------------------------

function store(name) {
    return new OPCUACertificateManager({ rootFolder: path.join(options.dir, name), automaticallyAcceptUnknownCertificate: true, name });
}

const server = new OPCUAServer({
    host: "127.0.0.1",
    port: options.port,
    hostname: "127.0.0.1",
    resourcePath: "/plant",
    nodesets: [nodesets.standard, nodesets.isa95JobControl],
    serverInfo: { applicationUri: options.applicationUri, productUri: "urn:plant", applicationName: { text: "machines" } },
    certificateFile: options.certificateFile,
    privateKeyFile: options.privateKeyFile,
    serverCertificateManager: store("pki"),
    userCertificateManager: store("users"),
    securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
    securityModes: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
    allowAnonymous: true,
    maxConnectionsPerEndpoint: 100,
    serverCapabilities: { maxSessions: 100, minSupportedSampleRate: 0 },
    isAuditing: false
});

await server.initialize();
const space = server.engine.addressSpace;
const own = space.registerNamespace("urn:plant:machines");
const control = space.getNamespaceIndex("http://opcfoundation.org/UA/ISA95-JOBCONTROL_V2/");
const type = (name) => space.findDataType(name, control);
const orderAndState = type("ISA95JobOrderAndStateDataType");
const responseType = type("ISA95JobResponseDataType");
const folder = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Machines", nodeId: "s=Machines" });

// ---- jobs ---------------------------------------------------------------------------------------------------------

const states = { NotAllowedToStart: 1, AllowedToStart: 2, Running: 3, Interrupted: 4, Ended: 5, Aborted: 6 };
const status = { ok: 1, unknown: 2, invalid: 8, unable: 16 };

// plain is an order as JSON: its values with their types, so that it can be made again.
function plain(o) {
    return JSON.parse(JSON.stringify(o));
}

function revived(o) {
    const parameter = (p) => ({ ...p, value: new Variant({
        dataType: DataType[p.value.dataType], arrayType: VariantArrayType.Scalar, value: revivedValue(p.value)
    }) });
    const copy = { ...o };
    if (copy.startTime) copy.startTime = new Date(copy.startTime);
    if (copy.endTime) copy.endTime = new Date(copy.endTime);
    if (copy.jobOrderParameters) copy.jobOrderParameters = copy.jobOrderParameters.map(parameter);
    if (options.forgetParameters) delete copy.jobOrderParameters;
    return copy;
}

function revivedValue(v) {
    return v.dataType === "DateTime" ? new Date(v.value) : v.value;
}

function shownState(job) {
    return [{ browsePath: { elements: [] }, stateText: { text: job.state }, stateNumber: states[job.state] }];
}

function parameterOf(o, id) {
    const p = (o.jobOrderParameters ?? []).find((p) => (p.ID ?? p.iD ?? p.id) === id);
    if (!p) return "";
    return Array.isArray(p.value.value) ? String(p.value.value[0] * 2 ** 32 + p.value.value[1]) : String(p.value.value);
}

const statusEvent = own.addEventType({
    subtypeOf: space.findEventType("ISA95JobOrderStatusEventType", control), browseName: "JobStatusEvent"
});

// raise tells of a job's new state. It comes after the list shows it.
function raise(machine, job) {
    const extension = (value, array) => ({
        dataType: DataType.ExtensionObject, value, arrayType: array ? VariantArrayType.Array : VariantArrayType.Scalar
    });
    space.rootFolder.objects.server.raiseEvent(statusEvent, {
        sourceNode: { dataType: DataType.NodeId, value: machine.receiver.nodeId },
        message: { dataType: DataType.LocalizedText, value: { text: job.id + " is " + job.state } },
        jobOrder: extension(space.constructExtensionObject(type("ISA95JobOrderDataType"), revived(job.order))),
        jobState: extension(shownState(job).map((s) => space.constructExtensionObject(type("ISA95StateDataType"), s)), true),
        jobResponse: extension(machine.response(job))
    });
}

class Machine {
    constructor(name) {
        this.name = name;
        this.memory = memory.machines[name] ??= { jobs: [], effects: [], setups: [], nodes: {} };
        this.folder = own.addObject({ componentOf: folder, browseName: name, nodeId: "s=" + name });
        const receiverType = space.findObjectType("ISA95JobOrderReceiverObjectType", control);
        this.receiver = receiverType.instantiate({
            namespace: own, componentOf: this.folder, browseName: "JobOrderReceiver", nodeId: `s=${name}.JobOrderReceiver`,
            optionals: ["Store", "StoreAndStart", "Start", "Update", "Cancel", "Abort", "Stop", "Pause", "Resume", "Clear", "RevokeStart", "JobOrderList",
                "MaxDownloadableJobOrders"]
        });
        this.list = this.receiver.getComponentByName("JobOrderList", control);
        const providerType = space.findObjectType("ISA95JobResponseProviderObjectType", control);
        this.provider = providerType.instantiate({
            namespace: own, componentOf: this.folder, browseName: "JobResponses", nodeId: `s=${name}.JobResponses`
        });
        for (const [method, act] of Object.entries(methods)) {
            this.receiver.getMethodByName(method, control).bindMethod(async (args, context) => {
                try {
                    return await this.call(method, act, args, context);
                } catch (e) {
                    console.log(method, e);
                    throw e;
                }
            });
        }
        this.provider.getMethodByName("RequestJobResponseByJobOrderID", control)?.bindMethod(async (args, context) => {
            const job = this.find(args[0].value);
            return {
                statusCode: StatusCodes.Good,
                outputArguments: [
                    { dataType: DataType.ExtensionObject, value: job ? this.response(job) : null },
                    { dataType: DataType.UInt64, arrayType: VariantArrayType.Scalar, value: [0, job ? status.ok : status.unknown] }
                ]
            };
        });
        this.show();
        this.setup();
    }

    find(id) {
        return this.memory.jobs.find((j) => j.id === id);
    }

    response(job) {
        return space.constructExtensionObject(responseType, {
            jobResponseID: "R-" + job.id, jobOrderID: job.id, jobState: shownState(job),
            ...(job.over ? {
                jobResponseData: [{ ID: "Good", value: { dataType: DataType.UInt32, value: 97 } }, { ID: "Text", value: { dataType: DataType.String, value: "ok" } }],
                materialActuals: [{ materialDefinitionID: "RM-STEEL", materialLotID: "L7", materialUse: "Consumed", quantity: "12.25" }]
            } : {}),
            ...(job.started ? { startTime: new Date(job.started) } : {}), ...(job.over ? { endTime: new Date(job.over) } : {})
        });
    }

    show() {
        const value = this.memory.jobs.map((j) => space.constructExtensionObject(orderAndState, { jobOrder: revived(j.order), state: shownState(j) }));
        this.list.setValueFromSource({ dataType: DataType.ExtensionObject, arrayType: VariantArrayType.Array, value });
    }

    // call carries a method out, and then lets its reply be lost where a fault says so.
    async call(method, act, args, context) {
        const fault = faultFor(this.name, method);
        if (fault.delayBefore) await new Promise((r) => setTimeout(r, fault.delayBefore));
        if (fault.lost) remember();
        if (fault.lost === "before") return fault.cut ? cut() : new Promise(() => {});
        if (fault.bad) return { statusCode: StatusCodes[fault.bad] };
        let answer = fault.refuse;
        if (answer === undefined) {
            answer = act(this, args);
            if (answer === status.ok) {
                const id = typeof args[0].value === "string" ? args[0].value : args[0].value.jobOrderID;
                const job = this.find(id);
                this.memory.effects.push({ method, id, revision: job ? job.revision : "", comment: args[1].value?.map((t) => t.text).join() ?? "" });
            }
            remember();
            this.show();
        }
        if (fault.delay) await new Promise((r) => setTimeout(r, fault.delay));
        if (fault.lost === "after") return fault.cut ? cut() : new Promise(() => {});
        return {
            statusCode: answer === status.ok ? StatusCodes.Good : StatusCodes.Uncertain,
            outputArguments: [{ dataType: DataType.UInt64, arrayType: VariantArrayType.Scalar, value: [Math.floor(answer / 2 ** 32), answer % 2 ** 32] }]
        };
    }

    // move changes a job's state as the machine or its operator would.
    move(id, to) {
        const job = this.find(id);
        if (!job) throw new Error("no job " + id);
        job.state = to;
        if (to === "Running") job.started ??= new Date().toISOString();
        if (to === "Ended" || to === "Aborted") job.over = new Date().toISOString();
        remember();
        this.show();
        raise(this, job);
    }

    // ---- an order written into nodes: when Strobe changes, the PLC takes what stands in the block and copies Strobe to Echo

    setup() {
        const types = { Order: DataType.String, Revision: DataType.Int32, Item: DataType.String, Quantity: DataType.Double, Due: DataType.DateTime,
            Cancelled: DataType.Boolean, Strobe: DataType.UInt32, Echo: DataType.UInt32 };
        const empty = { String: "", DateTime: new Date(0), Boolean: false };
        this.nodes = {};
        for (const [name, dataType] of Object.entries(types)) {
            let value = this.memory.nodes[name] ?? empty[DataType[dataType]] ?? 0;
            if (dataType === DataType.DateTime) value = new Date(value);
            this.nodes[name] = own.addVariable({
                componentOf: this.folder, browseName: name, nodeId: `s=${this.name}.${name}`, dataType, minimumSamplingInterval: 0
            });
            this.nodes[name].setValueFromSource({ dataType, value });
            this.nodes[name].on("value_changed", (v) => {
                this.memory.nodes[name] = v.value.value;
                remember();
                if (name === "Strobe") this.strobed(v.value.value);
            });
        }
    }

    strobed(strobe) {
        const faults = faultsOf(this.name);
        if (strobe === 0 || faults.deaf) return;
        const read = (n) => this.nodes[n].readValue().value.value;
        this.memory.setups.push({ order: read("Order"), revision: read("Revision"), item: read("Item"), quantity: read("Quantity"), cancelled: read("Cancelled"), strobe });
        remember();
        setTimeout(() => this.nodes.Echo.setValueFromSource({ dataType: DataType.UInt32, value: faults.wrongEcho ? 0 : strobe }), faults.echoAfter ?? 5);
    }
}

function storeJob(machine, order, state) {
    if (machine.find(order.jobOrderID) && !options.acceptTwice) return status.unable;
    const job = { id: order.jobOrderID, state, order: plain(order) };
    job.revision = parameterOf(job.order, "Revision");
    machine.memory.jobs.push(job);
    if (state === "AllowedToStart") mayStart(machine, job);
    return status.ok;
}

// mayStart lets a machine start by itself what it may start, where a test wants so.
function mayStart(machine, job) {
    const { startsAfter } = faultsOf(machine.name);
    if (!startsAfter) return;
    setTimeout(() => {
        const now = machine.find(job.id);
        if (now && now.state === "AllowedToStart") machine.move(job.id, "Running");
    }, startsAfter * Math.random());
}

// change is a method that takes a job from some states to another one; null removes it.
function change(from, to) {
    return (machine, args) => {
        const job = machine.find(args[0].value);
        if (!job) return status.unknown;
        if (!from.includes(job.state)) return status.invalid;
        if (to === null) machine.memory.jobs.splice(machine.memory.jobs.indexOf(job), 1);
        else machine.move(job.id, to);
        if (to === "AllowedToStart") mayStart(machine, job);
        return status.ok;
    };
}

const waiting = ["NotAllowedToStart", "AllowedToStart"];
const methods = {
    Store: (m, args) => storeJob(m, args[0].value, "NotAllowedToStart"),
    StoreAndStart: (m, args) => storeJob(m, args[0].value, "AllowedToStart"),
    Update: (m, args) => {
        const job = m.find(args[0].value.jobOrderID);
        if (!job) return status.unknown;
        if (!waiting.includes(job.state)) return status.invalid;
        job.order = plain(args[0].value);
        job.revision = parameterOf(job.order, "Revision");
        return status.ok;
    },
    Start: change(["NotAllowedToStart"], "AllowedToStart"),
    RevokeStart: change(["AllowedToStart"], "NotAllowedToStart"),
    Cancel: change(waiting, null),
    Abort: change([...waiting, "Running", "Interrupted"], "Aborted"),
    Stop: change(["Running", "Interrupted"], "Ended"),
    Pause: change(["Running"], "Interrupted"),
    Resume: change(["Interrupted"], "Running"),
    Clear: change(["Ended", "Aborted"], null)
};

// ---- what goes wrong ----------------------------------------------------------------------------------------------

// faults: loseAfter and loseBefore are the shares of calls whose reply or request is lost; cut ends the connections then,
// else nothing is said. delay (ms) holds replies back, delayBefore the effect. refuse answers a status, bad a StatusCode.
let everybody = {};
const faultsOf = (name) => apart.get(name) ?? everybody;
const apart = new Map(); // a machine's own

// A generator with a seed: a test can have the same run again.
let seed = 1;
function random() {
    seed = (seed * 1664525 + 1013904223) % 4294967296;
    return seed / 4294967296;
}

function faultFor(machine, method) {
    const faults = faultsOf(machine);
    const f = { delay: faults.delay, delayBefore: faults.delayBefore, refuse: faults.refuse, bad: faults.bad, cut: faults.cut };
    if (faults.methods && !faults.methods.includes(method)) return {};
    const dice = random();
    if (dice < (faults.loseAfter ?? 0)) f.lost = "after";
    else if (dice < (faults.loseAfter ?? 0) + (faults.loseBefore ?? 0)) f.lost = "before";
    if (f.lost) memory.lost = (memory.lost ?? 0) + 1;
    return f;
}

function cut() {
    for (const e of server.endpoints) e.abruptlyInterruptChannels();
    return new Promise(() => {});
}

const machines = new Map();
for (const name of options.machines) machines.set(name, new Machine(name));

function truth() {
    const out = {};
    for (const [name, m] of machines) {
        out[name] = {
            jobs: m.memory.jobs.map((j) => ({ id: j.id, revision: j.revision, state: j.state, order: j.order })),
            effects: m.memory.effects, setups: m.memory.setups, nodes: m.memory.nodes
        };
    }
    return { machines: out, lost: memory.lost ?? 0 };
}

const actions = {
    "GET /ready": () => ({}),
    "GET /machines": () => truth(),
    "GET /events": () => ({
        listeners: Object.values(server.engine._sessions).flatMap((s) => s.publishEngine.subscriptions)
            .filter((s) => s.monitoredItemCount > 0).length
    }),
    "POST /faults": (b) => {
        if (b.machine) apart.set(b.machine, b);
        else everybody = b;
        if (b.seed !== undefined) seed = b.seed;
    },
    "POST /move": async (b) => {
        for (const to of [b.to].flat()) {
            machines.get(b.machine).move(b.id, to);
            await new Promise((r) => setTimeout(r, 3)); // machines have a clock that goes on between two states
        }
    },
    "POST /remove": (b) => {
        const m = machines.get(b.machine);
        m.memory.jobs = m.memory.jobs.filter((j) => j.id !== b.id);
        remember();
        m.show();
    },
    "POST /set": (b) => machines.get(b.machine).nodes[b.node].setValueFromSource({ dataType: b.type, value: b.value }),
    "POST /cut": () => { cut(); }
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
