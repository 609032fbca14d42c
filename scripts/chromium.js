// What the checks in a browser share: arguments, finding Chromium ($CHROMIUM, or from the PATH), and packages of npm.
"use strict";
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { createRequire } = require("node:module");

const FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

function browser() {
  const names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
  const folders = (process.env.PATH || "").split(path.delimiter);
  const all = [process.env.CHROMIUM, ...names.flatMap((name) => folders.map((folder) => path.join(folder, name)))];
  return all.find((file) => file && fs.existsSync(file));
}

// A package of npm, such as "axe-core@4.10.3": from $PLAYWRIGHT (a folder with node_modules), from the current folder, or installed in `temporary`.
// `load` gets a function like require.
function fromNpm(wanted, temporary, load) {
  for (const folder of [process.env.PLAYWRIGHT, process.cwd()].filter(Boolean)) {
    try {
      return load(createRequire(path.join(folder, "x.js")));
    } catch {}
  }
  const options = { stdio: ["ignore", "ignore", "inherit"], timeout: 60_000 };
  execFileSync("npm", ["install", "--silent", "--no-save", "--prefix", temporary, wanted], options);
  return load(createRequire(path.join(temporary, "x.js")));
}

async function launch(temporary) {
  const playwright = fromNpm("playwright-core@1.65.1", temporary, (require) => require("playwright-core"));
  return playwright.chromium.launch({ executablePath: browser(), args: FLAGS.split(" ") });
}

// Takes "--screenshots DIR" out of the arguments. Returns the others, and the folder.
function parse() {
  const args = process.argv.slice(2);
  const at = args.indexOf("--screenshots");
  const [screenshots] = at < 0 ? [] : args.splice(at, 2).slice(1);
  return { args, screenshots };
}

// Does `work` with a temporary folder, if there is a Chromium. Makes the folder of the screenshots.
async function inBrowser(screenshots, work) {
  if (!browser()) return "skipped: no chromium";
  if (screenshots) fs.mkdirSync(screenshots, { recursive: true });
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "browser-check-"));
  try {
    return await work(temporary);
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

// Prints what `main` returns. After an error the status is 1.
function run(main) {
  main().then(console.log, (error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}

module.exports = { fromNpm, inBrowser, launch, parse, run };
