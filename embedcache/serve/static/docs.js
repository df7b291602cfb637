// The OpenAPI document as a page; FastAPI's own would load its scripts from elsewhere.

import { $, el } from "./dom.js";

const short = (reference) => reference.split("/").pop();

function typeOf(schema, names) {
  if (!schema || !Object.keys(schema).length) return "anything";
  if (schema.$ref) {
    names.add(short(schema.$ref));
    return short(schema.$ref);
  }
  const any = schema.anyOf || schema.oneOf;
  if (any) return any.map((one) => typeOf(one, names)).join(" or ");
  if (schema.enum || schema.const) return (schema.enum || [schema.const]).map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, names)}`;
  if (schema.type === "object" && schema.additionalProperties) return `name → ${typeOf(schema.additionalProperties, names)}`;
  const limits = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"].filter((one) => one in schema);
  return schema.type + (limits.length ? ` (${limits.map((one) => `${one} ${schema[one]}`).join(", ")})` : "");
}

function fields(schema, names) {
  const required = new Set(schema.required || []);
  return el("table", { class: "fields" }, el("tbody", {}, Object.entries(schema.properties || {}).map(([name, one]) =>
    el("tr", {}, el("th", { scope: "row" }, name, required.has(name) ? "" : " (optional)"), el("td", {}, typeOf(one, names)), el("td", {}, one.description || "")))));
}

function operation(path, method, about, schemas) {
  const names = new Set();
  const body = about.requestBody?.content?.["application/json"]?.schema;
  const answers = Object.entries(about.responses).map(([status, one]) => {
    const [kind, content] = Object.entries(one.content || {})[0] || ["", {}];
    const type = kind === "application/json" ? typeOf(content.schema, names) : kind;
    return el("tr", {}, el("th", { scope: "row" }, status), el("td", {}, type), el("td", {}, one.description));
  });
  const asked = body?.$ref ? schemas[short(body.$ref)] : null;
  const example = asked?.examples?.[0];
  const command = `curl -s ${location.origin}${path}` + (example ? ` -H 'Content-Type: application/json' -d '${JSON.stringify(example)}'` : "");
  return el("section", { class: "panel" },
    el("h2", {}, el("code", {}, `${method.toUpperCase()} ${path}`)), el("p", {}, about.summary || ""),
    el("pre", { tabindex: "0" }, el("code", {}, command)),
    about.parameters ? el("table", { class: "fields" }, el("tbody", {}, about.parameters.map((one) =>
      el("tr", {}, el("th", { scope: "row" }, one.name), el("td", {}, typeOf(one.schema, names)), el("td", {}, one.description || one.schema.description || ""))))) : null,
    asked ? [el("h3", {}, "Body"), el("p", { class: "note" }, asked.description || ""), fields(asked, names)] : null,
    el("h3", {}, "Answers"), el("table", { class: "fields" }, el("tbody", {}, answers)));
}

const found = await (await fetch("openapi.json")).json();
const schemas = found.components.schemas;
const operations = Object.entries(found.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, about]) => operation(path, method, about, schemas)));
const models = Object.entries(schemas).toSorted().map(([name, schema]) => el("section", { class: "panel", id: name },
  el("h3", {}, name), el("p", { class: "note" }, schema.description || ""), fields(schema, new Set())));
$("operations").replaceChildren(...operations, el("h2", {}, "Schemas"), ...models);
