// What the page of runs says, in two languages. Names of settings stay as train.py has them.

import { kept } from "./dom.js";

export const WORDS = {
  en: {
    runs: "Runs", model: "Model", theme: "Light or dark", token: "Token of this server", send: "Send",
    choose: "Choose one to see it, several to compare them", curves: "Curves", figure: "Shown", across: "by",
    empty: "There are no runs here yet. One begins with: python train.py --out runs/mine",
    log: "logarithmic", rate: "The learning rate", results: "Results", samples: "Samples, the newest first",
    none: "None were drawn yet.", alike: "All settings are alike.",
    hint: "Faint: training, of each stretch the least and the greatest; line: smoothed; dots: validation. Point, or use arrow keys.",
    settings: "Settings", different: "Settings that differ", more: "More than 500 runs: only the first are listed.",
    running: "running", silent: "silent", stopped: "stopped", finished: "finished", unreadable: "unreadable",
    silent_long: "no record for {time}: failed, killed, or at something long",
    lines: "{count} lines of the file are not records and were passed over",
    reading: "reading, {share} %", gone: "The server does not answer. Trying again …", deleted: "{name} is no longer there.",
    full: "Eight runs can be compared at once: take one away first.",
    loss: "loss, nats", bits_per_byte: "bits per byte", perplexity: "perplexity", accuracy: "accuracy", macro_f1: "macro-F1",
    grad_norm: "length of the gradient", tokens_per_second: "tokens a second", lr: "learning rate",
    step: "step", tokens: "tokens", seconds: "seconds of learning", training: "training", validation: "validation", train: "training", smooth: "smoothed", eval: "validation",
    of: "step {step} of {steps}", at: "step {step}", speed: "{count} tokens/s", left: "{time} of learning left", ago: "{time} ago",
    method: "method", trains: "parameters that learn", last_loss: "training loss, last", best: "validation loss, least",
    at_step: "{value} (step {step})", memory: "memory at its peak", final_loss: "loss of what is kept", after: "after step {step}",
    picture: "{what} by {across} of {runs}", second: "s", minute: "min", hour: "h", day: "d",
  },
  zh: {
    runs: "训练", model: "模型", theme: "浅色或深色", token: "本服务器的令牌", send: "发送",
    choose: "选一个查看，选多个比较", curves: "曲线", figure: "显示", across: "横轴",
    empty: "这里还没有训练。开始一个：python train.py --out runs/mine",
    log: "对数刻度", rate: "学习率", results: "结果", samples: "样本，最新的在前",
    none: "还没有样本。", alike: "所有设置都相同。",
    hint: "浅线：训练（每段的最小值和最大值）；实线：平滑；带点：验证。可用指针指向，或用方向键移动。",
    settings: "设置", different: "不同的设置", more: "超过 500 个训练：只列出前面的。",
    running: "进行中", silent: "无消息", stopped: "已停止", finished: "已完成", unreadable: "无法读取",
    silent_long: "{time}没有新记录：失败、被终止，或正在做很久的事",
    lines: "文件中有 {count} 行不是记录，已跳过",
    reading: "读取中，{share} %", gone: "服务器没有回应，正在重试……", deleted: "{name} 已不存在。",
    full: "最多同时比较八个：请先去掉一个。",
    loss: "损失（nat）", bits_per_byte: "每字节比特数", perplexity: "困惑度", accuracy: "准确率", macro_f1: "宏平均 F1",
    grad_norm: "梯度长度", tokens_per_second: "每秒词元数", lr: "学习率",
    step: "步", tokens: "词元", seconds: "学习秒数", training: "训练", validation: "验证", train: "训练", smooth: "平滑", eval: "验证",
    of: "第 {step} 步，共 {steps} 步", at: "第 {step} 步", speed: "每秒 {count} 词元", left: "学习还需 {time}", ago: "{time}前",
    method: "方法", trains: "学习的参数", last_loss: "最近的训练损失", best: "最低验证损失",
    at_step: "{value}（第 {step} 步）", memory: "内存峰值", final_loss: "所保留模型的损失", after: "第 {step} 步之后",
    picture: "{runs} 的{what}，横轴为{across}", second: "秒", minute: "分", hour: "小时", day: "天",
  },
};

let language = "en";

export const current = () => language;

/** The word, with {names} filled in. */
export function say(word, values = {}) {
  return (WORDS[language][word] ?? word).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

/** Show the page in this language and remember it. */
export function speak(chosen) {
  language = chosen in WORDS ? chosen : "en";
  kept.set("language", language);
  document.documentElement.lang = language;
  document.title = say("runs");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  const button = document.getElementById("language");
  [button.textContent, button.lang] = language === "en" ? ["中文", "zh"] : ["English", "en"];
}

/** 3725 -> "1 h 2 min": two units at most. */
export function span(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return `0 ${say("second")}`;
  const parts = [];
  for (const [unit, size] of units.slice(first, first + 2)) {
    const count = Math.floor(seconds / size);
    if (count) parts.push(`${count} ${say(unit)}`);
    seconds -= count * size;
  }
  return parts.join(" ");
}

/** A number as one reads it: four digits, thousands apart. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  const large = Math.abs(value) >= 1000, small = value !== 0 && Math.abs(value) < 0.001;
  if (small) return value.toExponential(2);
  return value.toLocaleString("en", large ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 });
}
