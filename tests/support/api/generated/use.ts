// Calls every operation by the types that openapi-typescript has made, and prints what it was told as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { env: Record<string, string> };

const baseUrl = process.env.API;
const api = createClient<paths, "application/json">({
  baseUrl,
  headers: { Authorization: `Bearer ${process.env.TOKEN}` },
});
const stranger = createClient<paths, "application/json">({ baseUrl });

const body: components["schemas"]["SessionRequest"] = { region: "fsn", dns: ["9.9.9.9"] };
const opened = (await api.POST("/v1/sessions", { body })).data!;
const path = { session_id: opened.id };
const shown = (await api.GET("/v1/sessions/{session_id}", { params: { path } })).data!;
const listed = (await api.GET("/v1/sessions", { params: { query: { live: true, limit: 5 } } })).data!;
const refused = (await api.POST("/v1/sessions", { body: { region: "nowhere", client_public_key: null } })).error!;
const ended = (await api.DELETE("/v1/sessions/{session_id}", { params: { path } })).data!;
const unknown = (await api.GET("/v1/sessions/{session_id}", { params: { path: { session_id: "ses_1" } } })).error!;
const usage = (await api.GET("/v1/usage")).data!;
const regions = (await stranger.GET("/v1/regions")).data!;

const made = (await api.POST("/v1/devices", { body: { name: "phone", region: "fsn" } })).data!;
const one = { path: { device_id: made.id } };
const paused = (await api.PATCH("/v1/devices/{device_id}", { params: one, body: { paused: true } })).data!;
const rotated = (await api.POST("/v1/devices/{device_id}/rotate", { params: one, body: { dns: false } })).data!;
const device = (await api.GET("/v1/devices/{device_id}", { params: one })).data!;
const devices = (await api.GET("/v1/devices", { params: { query: { limit: 5 } } })).data!;
const removed = (await api.DELETE("/v1/devices/{device_id}", { params: one })).data!;
const gone = (await api.GET("/v1/devices/{device_id}", { params: one })).error!;

console.log(
  JSON.stringify({
    id: opened.id,
    tier: opened.tier,
    wg_config: opened.wg_config,
    listed: listed.sessions.map((each) => each.id),
    shown: shown.id,
    expires_in_days: (Date.parse(shown.expires_at) - Date.parse(shown.created_at)) / 86_400_000,
    ended: ended.terminated_reason,
    bytes_limit: usage.bytes_limit,
    device: [made.name, paused.state, device.state, removed.state, gone.code],
    devices: devices.devices.map((each) => each.id === made.id),
    keys: made.wg_config !== rotated.wg_config,
    regions: regions.regions.map((each) => each.code),
    healthy: (await stranger.GET("/healthz")).data!.status,
    ready: (await stranger.GET("/readyz")).data!.status,
    refused: { code: refused.code, available: "available" in refused ? refused.available : null },
    unknown: unknown.code,
    stranger: (await stranger.GET("/v1/usage")).error!.code,
  }),
);
