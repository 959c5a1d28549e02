"use strict";

const KEY = "borough_fleet_key";
const EVERY_MS = 15000;
let timer = 0;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

async function get(path) {
  const key = sessionStorage.getItem(KEY);
  const answer = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  const body = await answer.json();
  if (answer.status === 401) throw Object.assign(new Error(body.error), { login: true });
  if (!body.ok) throw new Error(body.error);
  return body.data;
}

function fill(id, heads, rows) {
  const table = document.getElementById(id);
  const head = element("tr");
  for (const text of heads) head.append(element("th", text));
  const lines = rows.map((cells) => {
    const line = element("tr");
    for (const text of cells) line.append(element("td", text));
    return line;
  });
  if (!lines.length) {
    const line = element("tr");
    const cell = element("td", "none", "empty");
    cell.colSpan = heads.length;
    line.append(cell);
    lines.push(line);
  }
  table.replaceChildren(head, ...lines);
}

function left(expiresAt) {
  const seconds = expiresAt - Math.floor(Date.now() / 1000);
  if (seconds <= 0) return "expired";
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
}

function show(status, hosts, envs, images) {
  const tiles = [
    ["Hosts online", `${status.hosts_online}/${status.hosts}`],
    ["Machines", status.total_vms],
    ["Environments", status.total_envs],
    ["CPU", `${status.cpu_used}/${status.cpu_total}`],
    ["Memory, MiB", `${status.mem_used}/${status.mem_total}`],
    ["Disk, MiB", `${status.disk_used}/${status.disk_total}`],
  ].map(([name, value]) => {
    const tile = element("div");
    tile.append(element("dt", name), element("dd", value));
    return tile;
  });
  document.getElementById("status").replaceChildren(...tiles);
  fill("hosts", ["Id", "Address", "State", "Engines", "CPU", "Memory, MiB", "Machines"], hosts.map((host) => {
    const has = host.resource;
    const state = host.cordoned ? `${host.state}, cordoned` : host.state;
    return [host.id, host.addr, host.error ? `${state}: ${host.error}` : state, host.engines.join(", "),
      `${has.cpu_used}/${has.cpu_total}`, `${has.mem_used}/${has.mem_total}`, has.vm_count];
  }));
  fill("envs", ["Name", "Owner", "State", "Machines", "Time left"],
    envs.map((env) => [env.id, env.owner, env.state, env.vm_ids.length, left(env.expires_at)]));
  fill("images", ["Name", "Host"], images.map((image) => [image.name, image.host_id]));
}

async function load() {
  clearTimeout(timer);
  const told = document.getElementById("told");
  const login = document.getElementById("login");
  try {
    show(...await Promise.all(["status", "hosts", "envs", "images"].map((name) => get(`/api/${name}`))));
    told.textContent = `as of ${new Date().toLocaleTimeString()}`;
    told.className = "";
    login.hidden = true;
  } catch (error) {
    told.textContent = error.login && !sessionStorage.getItem(KEY) ? "an API key is needed" : error.message;
    told.className = "wrong";
    if (error.login) {
      sessionStorage.removeItem(KEY);
      login.hidden = false;
      return;
    }
  }
  timer = setTimeout(load, EVERY_MS);
}

document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.getElementById("key");
  sessionStorage.setItem(KEY, input.value.trim());
  input.value = "";
  load();
});
load();
