// What the map's colours mean for what is shown: each expert's pixel, the legend, a sentence.

import { percent, number } from "./dom.js";
import * as watch from "./watch.js";
import { isDark, mixed, palette, pixel, ramp } from "./colours.js";
import { fits, nameOf, of, shown } from "./pictures.js";

const OFTEN = 6; // so many times the mean use is the end of the ramp
const RARE = 0.2; // less than this part of the mean use is hardly a difference

/** { fill(pixels), legend, told, flashes }: how to paint what is shown now. */
export function shades() {
  const { model } = watch;
  const [a, b] = [of(shown.a), of(shown.b)];
  if (shown.b && fits(a) && fits(b)) return compared(a, b);
  if (shown.a !== "now" || !model.streamed) return used(a);
  return present();
}

function present() {
  const { absent, here, kept, ...others } = palette();
  const looks = [absent, here, absent, kept].map(pixel); // by the marks: in memory 1, to be kept 2
  return {
    fill: (pixels) => watch.state.forEach((mark, place) => (pixels[place] = looks[mark])),
    legend: [[absent, "on disk"], [here, "in memory for now"], [kept, "kept in memory"], [others.used, "used just now"],
      [others.read, "read from disk"], [others.guessed, "guessed and used"], [others.vain, "guessed in vain"]],
    told: "Each square is an expert, each row a layer. What happens to one lights up, and fades.",
    flashes: watch.flashes,
  };
}

function used(picture) {
  const { heat, used: now } = palette();
  const live = shown.a === "now";
  const known = fits(picture) && picture.tokens > 0;
  const strong = isDark() ? "brighter" : "darker";
  const steps = heat.map(pixel);
  return {
    fill(pixels) {
      const uses = known ? watch.shares(picture.uses) : null;
      for (let place = 0; place < pixels.length; place += 1) pixels[place] = ramp(steps, uses ? Math.sqrt((uses[place] * watch.model.n) / OFTEN) : 0);
    },
    legend: live ? [[heat[0], "not used yet"], [heat[4], "used most"], [now, "used just now"]]
      : [[heat[0], "not used"], [heat[2], "used"], [heat[4], "used most"]],
    told: !known ? "Nothing was used yet: ask something."
      : `Which experts ${number(picture.tokens)} tokens used: the ${strong}, the more.${live ? "" : " To lay another answer or a profile over it, choose it above."}`,
    flashes: live ? watch.flashes : null,
  };
}

function compared(a, b) {
  const colours = palette();
  const [first, second, same] = [colours.a, colours.b, colours.same].map(pixel);
  const least = RARE / watch.model.n;
  return {
    fill(pixels) {
      const [one, other] = [watch.shares(a.uses), watch.shares(b.uses)];
      for (let place = 0; place < pixels.length; place += 1) {
        const more = (one[place] - other[place]) / Math.max(one[place] + other[place], least);
        pixels[place] = mixed(same, more > 0 ? first : second, Math.abs(more));
      }
    },
    legend: [[colours.a, `more in ${nameOf(shown.a)}`], [colours.b, `more in ${nameOf(shown.b)}`], [colours.same, "alike"]],
    told: `${percent(watch.likeness(a.uses, b.uses))} of their uses are the same (${number(a.tokens)} and ${number(b.tokens)} tokens).`,
    flashes: null,
  };
}
