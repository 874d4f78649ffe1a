"""The looks of report.html: light or dark as the reader's system is, from a phone's width to 1,280 pixels."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --soft: #60646c; --rule: #e2e4e9; --panel: #f6f7f9;
  --train: #2f6fde; --val: #d9730d; --test: #1a8f5c; --heat: #2f6fde; --on-heat: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e6e8eb; --soft: #9ba1a9; --rule: #2e3238; --panel: #1d2024;
    --train: #6ea5ff; --val: #f2a35a; --test: #5fcf9a; --heat: #4d8cf5; --on-heat: #ffffff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 18px 0 8px; }
section { margin-top: 36px; border-top: 1px solid var(--rule); padding-top: 18px; }
pre { background: var(--panel); border-radius: 6px; padding: 10px 12px; margin: 0 0 14px; font-size: 13px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.note, small, dt, caption { color: var(--soft); }
.note { margin: 0 0 12px; }
dl { margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
header dl { display: flex; flex-wrap: wrap; gap: 8px 32px; }
header dl div { min-width: 0; }
dt { font-size: 13px; }
.keys { columns: 2; column-gap: 40px; font-size: 13px; }
.keys div { display: flex; gap: 16px; justify-content: space-between; break-inside: avoid; padding: 3px 0;
  border-bottom: 1px solid var(--rule); }
.keys dt { flex: none; max-width: 60%; overflow-wrap: anywhere; }
.keys dd { min-width: 0; text-align: right; font-family: ui-monospace, monospace; font-size: 12px; }
.scroll { overflow-x: auto; }
.scroll + .keys { margin-top: 18px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; font-weight: 500; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
.figures td, .figures tr:first-child th { text-align: right; }
.figures tr:first-child th { color: var(--soft); font-size: 13px; }
caption { caption-side: bottom; text-align: left; font-size: 13px; padding-top: 8px; }
.pair { display: grid; grid-template-columns: minmax(0, auto) minmax(0, auto); justify-content: start; gap: 24px 56px; }
.pair > div { min-width: 0; }
.heat th, .heat td { border: 0; padding: 0 8px; }
.heat td { height: 34px; min-width: 46px; text-align: center; border: 1px solid var(--paper); }
.heat td[style] { background: color-mix(in srgb, var(--heat) var(--share), var(--panel)); }
.heat td.strong { color: var(--on-heat); }
.heat .column { max-width: 120px; overflow: hidden; text-overflow: ellipsis; text-align: center; font-size: 13px;
  padding-bottom: 6px; }
.charts { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 28px; }
figure { margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 10px; display: flex; flex-wrap: wrap; gap: 2px 16px; }
.key { font-weight: 400; color: var(--soft); }
.key b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: middle; background: var(--colour); }
.train { --colour: var(--train); } .val { --colour: var(--val); } .test { --colour: var(--test); }
.plain { --colour: var(--soft); }
.hue0 { --colour: #2f6fde; } .hue1 { --colour: #d9730d; } .hue2 { --colour: #1a8f5c; }
.hue3 { --colour: #b8336a; } .hue4 { --colour: #7a4fd0; } .hue5 { --colour: #0f8fa8; }
.hue6 { --colour: #a8741a; } .hue7 { --colour: #c43d3d; } .hue8 { --colour: #5f7d1f; }
.hue9 { --colour: #8a8f98; }
.maps { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 28px; }
.field { position: relative; aspect-ratio: 1; background: var(--panel); border-radius: 6px; }
.spots { stroke: var(--colour); stroke-width: 4; stroke-linecap: round; stroke-opacity: 0.75; }
.spots.plain { stroke-opacity: 0.3; }
.soft { font-weight: 400; color: var(--soft); }
.keys-of-map { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 10px; font-size: 14px; }
.asked { display: grid; grid-template-columns: minmax(72px, 180px) minmax(0, 1fr); gap: 20px; padding: 8px 0;
  border-bottom: 1px solid var(--rule); }
.answers { display: flex; flex-wrap: wrap; gap: 8px; }
.item { display: flex; flex-direction: column; gap: 2px; min-width: 66px; max-width: 200px; padding: 4px;
  font-size: 12px; border: 2px solid transparent; border-radius: 6px; overflow-wrap: anywhere; }
.item.right { border-color: var(--test); }
.item img { width: 56px; height: 56px; object-fit: contain; image-rendering: pixelated; }
.plot { display: grid; grid-template: minmax(0, 1fr) 0 / 50px minmax(0, 1fr); height: 190px; padding: 6px 14px 22px 0; }
.wide .plot { height: 300px; }
.area, .ys, .xs { position: relative; font-size: 12px; color: var(--soft); font-variant-numeric: tabular-nums; }
.plot span { white-space: nowrap; }
.ys span { position: absolute; right: 8px; transform: translateY(-50%); }
.xs { grid-column: 2; height: 0; }
.xs span { position: absolute; top: 4px; transform: translateX(-50%); }
svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
path { fill: none; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--rule); }
.floor { stroke: var(--soft); stroke-dasharray: 5 4; }
.line { stroke: var(--colour); stroke-width: 1.75; stroke-linejoin: round; }
.line.plain { stroke-dasharray: 5 4; }
.band { fill: color-mix(in srgb, var(--colour) 16%, transparent); }
.dots { stroke: var(--colour); stroke-width: 6; stroke-linecap: round; }
.floor-label { position: absolute; right: 0; transform: translateY(-100%); padding: 0 2px 1px; background: none; }
.floor-label.below { transform: none; }
.sample { background: var(--panel); border-radius: 6px; padding: 10px 12px; margin-bottom: 10px; }
.input, .output { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; }
.input { color: var(--soft); margin-bottom: 6px; }
.list:has(> div > .list) { display: flex; flex-wrap: wrap; gap: 10px 48px; }
.candidate { display: flex; align-items: center; gap: 12px; }
.candidate > span:first-child { min-width: 120px; }
.bar { width: 120px; height: 8px; border-radius: 4px; flex: none;
  background: linear-gradient(90deg, var(--train) var(--share), var(--rule) 0); }
@media (max-width: 900px) { .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 720px) {
  main { padding: 20px 14px 48px; }
  .charts, .pair, .maps { grid-template-columns: minmax(0, 1fr); }
  .keys { columns: 1; }
  .wide .plot { height: 220px; }
}
"""
