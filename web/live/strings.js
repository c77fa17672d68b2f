// Every text of the page, [English, 简体中文]. Each language is written for its own readers; neither translates the other.

export const strings = {
  title: ["A photo in tokens", "一张照片，一格格 token"],
  overline: ["Lexel · a real model in your browser", "Lexel · 浏览器里的真模型"],
  lede: [
    "A small neural network looks at your photo in little squares and keeps one number for each: which of K learned codes comes nearest. From these numbers alone, the tokens, a second network draws the photo again. See what survives, then change the numbers with a brush.",
    "一个小网络把照片切成许多小方格，每格只留下一个数：学到的 K 个码字里，哪一个最像。这些数就是 token。另一个网络只看这些数，把照片重新画出来。画得像不像？换掉几个数又会怎样？都可以自己试。",
  ],
  private: [
    "<b>The photo never leaves this machine.</b> Both networks run inside this page, and the page forbids itself to send anything anywhere.",
    "<b>照片不会离开这台机器。</b>两个网络都在本页里运行；页面给自己定了规矩：什么都不许往外发。",
  ],
  footer: [
    "Tokens, pictures and figures come from the exported model itself, run by onnxruntime; tests compare them with those of Lexel, the library that trained it.",
    "这里的 token、图像和数值，都由导出的模型经 onnxruntime 现场算出，并与训练它的 Lexel 库逐项对照测试过。",
  ],

  "start.title": ["Your photo, a codebook", "选一张照片，挑一个码本"],
  "start.say": [
    "Choose a photo, drop one anywhere on the page, or paste one. Then slide K, the number of codes the network may choose from: more codes, more detail, more bits.",
    "点按钮选照片，或者直接拖进页面、粘贴进来都行。再拖动 K，也就是码本里有多少个码字：码字越多，细节越多，要存的比特也越多。",
  ],
  "start.one": [
    "Choose a photo, drop one anywhere on the page, or paste one.",
    "点按钮选照片，或者直接拖进页面、粘贴进来都行。",
  ],
  "choose.first": ["Choose a photo", "选照片"],
  "choose.second": ["Choose a second photo", "选第二张照片"],
  drop: ["or drop it anywhere, or paste it", "也可以拖进来，或者粘贴"],
  size: ["largest size, in megapixels", "最大尺寸（百万像素）"],
  "size.0.1": ["0.1", "0.1"],
  "size.0.2": ["0.2", "0.2"],
  "size.0.4": ["0.4", "0.4"],
  "size.1": ["1", "1"],
  K: ["K, how many codes", "K：码字个数"],

  loading: ["Loading the model “{title}” …", "正在载入模型“{title}”……"],
  encoding: ["Finding the tokens of {name} …", "正在给 {name} 找 token……"],
  ready: ["The model is ready. It waits for a photo.", "模型准备好了，就等一张照片。"],
  "photo.scaled": [
    "The photo has {width} × {height} pixels; it is used at {toWidth} × {toHeight}, so that the page stays quick.",
    "原图 {width} × {height} 像素，为了跑得动，缩到 {toWidth} × {toHeight} 再用。",
  ],
  "photo.animated": ["Of an animation, only the first frame is used.", "动图只取第一帧。"],
  "drop.several": ["Of {count} files, only the first is used: {name}.", "一共 {count} 个文件，只用第一个：{name}。"],
  "drop.nothing": [
    "There was no file in that. Drop or paste a picture.",
    "这里面没有文件。请拖入或粘贴一张图片。",
  ],
  "photo.unknown": [
    "This browser cannot read {name}: it is damaged, or not a picture that it knows. Try a PNG or a JPEG.",
    "浏览器读不了 {name}：它可能损坏了，也可能不是认得的图片。换一张 PNG 或 JPEG 试试。",
  ],
  "photo.damaged": [
    "{name} is damaged, or no picture of pixels, such as an SVG. Try a PNG or a JPEG.",
    "{name} 已经损坏，或者不是由像素组成的图（比如 SVG）。换一张 PNG 或 JPEG 试试。",
  ],
  "photo.large": [
    "{name} has {width} × {height} pixels. The page reads up to {most} megapixels; make it smaller first.",
    "{name} 有 {width} × {height} 像素，本页最多读 {most} 百万像素，请先把它缩小。",
  ],
  "photo.missing": [
    "The example “{title}” is not there: {source} is missing.",
    "示例“{title}”不在：缺了文件 {source}。",
  ],
  "photo.waits": [
    "The example “{title}” has not come yet. The page goes on waiting; you can take another photo meanwhile.",
    "示例“{title}”还没到，页面会继续等。你可以先用别的照片。",
  ],
  "model.missing": [
    "The model “{title}” is not there: {source} is missing. The other models still work.",
    "模型“{title}”不在：缺了文件 {source}。其他模型照常可用。",
  ],
  "model.damaged": [
    "The file of the model “{title}” is damaged. Export it again; the other models still work.",
    "模型“{title}”的文件已损坏，请重新导出。其他模型照常可用。",
  ],
  "model.waits": [
    "The model “{title}” has not come yet. The page goes on waiting; you can slide to another one meanwhile.",
    "模型“{title}”还没到，页面会继续等。你可以先换一个模型。",
  ],
  "models.none": [
    "This folder holds no model: models.js is missing or damaged. Export it again.",
    "这个文件夹里没有模型：models.js 缺失或已损坏，请重新导出。",
  ],
  "runtime.off": [
    "WebAssembly is switched off in this browser, and the model needs it. Switch it on and load the page again.",
    "这个浏览器关掉了 WebAssembly，模型没法运行。请打开它，再重新载入本页。",
  ],
  "runtime.missing": [
    "runtime.js is missing or damaged, and the model needs it. Export the folder again.",
    "runtime.js 缺失或已损坏，模型没法运行。请重新导出这个文件夹。",
  ],
  "runtime.broken": [
    "onnxruntime, which runs the model, does not start in this browser. A newer browser may help.",
    "运行模型的 onnxruntime 在这个浏览器里启动不了，换个新一点的浏览器试试。",
  ],
  unexpected: ["Something went wrong: {reason}", "出错了：{reason}"],

  "photo.name": ["Photo", "照片"],
  "photo.label": ["The photo {name}", "照片 {name}"],
  "tokens.name": ["Tokens", "token"],
  "tokens.label": [
    "{columns} by {rows} tokens. Arrow keys move, with Shift by eight; the space key uses the tool, Enter picks the code.",
    "{columns} 列 {rows} 行 token。方向键移动，加 Shift 一次八格；空格键使用工具，回车键取码字。",
  ],
  "decoded.name": ["Drawn from the tokens", "由 token 画出"],
  "decoded.caption": ["paint here, too", "这里也能涂"],
  "decoded.label": ["The picture that the decoder draws from the tokens", "解码器由 token 画出的图"],
  "second.name": ["Second photo, from its tokens", "第二张，由 token 画出"],
  "second.label": ["The second photo as the decoder draws it from its tokens", "解码器由 token 画出的第二张照片"],
  hovered: [
    "column {column}, row {row}: code {code}, which stands here {count} times",
    "第 {column} 列第 {row} 行：码字 {code}，全图共 {count} 处",
  ],
  "hovered.other": ["; in the second photo {code}", "；第二张在此处是 {code}"],
  error: ["mean squared error", "均方误差"],
  psnr: ["PSNR, more is better", "PSNR（越高越好）"],
  bits: ["bits as tokens", "存 token 的比特数"],
  pixelBits: ["bits as pixels", "存像素的比特数"],
  perplexity: ["perplexity", "困惑度"],
  used: ["codes in use", "用上的码字"],
  sum: [
    "{tokens} tokens of log₂ K = {each} bits each are {times} times fewer bits than the pixels. Perplexity: so many codes, all used equally often, would be as varied as these.",
    "共 {tokens} 个 token，每个 log₂ K = {each} 比特，总量是像素的 1/{times}。困惑度的意思是：这些 token 的丰富程度，相当于多少个码字用得一样多。",
  ],
  speed: [
    "This machine decodes 64 × 64 tokens in {milliseconds} milliseconds; only what a brush stroke changes is decoded anew.",
    "这台机器解码 64 × 64 个 token 要 {milliseconds} 毫秒；每涂一笔，只重新解码受影响的部分。",
  ],
  "model.levels": [
    "This model has {levels} levels of tokens, which the picture needs together. You repaint one level at a time.",
    "这个模型有 {levels} 层 token，合在一起才成图。一次只涂其中一层。",
  ],
  "model.strange": [
    "How the tokens of this model lie in the picture is not known here, so they cannot be repainted; the picture, its error and its bits are shown.",
    "这里不知道这个模型的 token 在图里怎样排列，所以不能重涂；图像、误差和比特数照常显示。",
  ],
  "model.size": [
    "This model takes images of {width} × {height} pixels alone; the photo is cut and scaled to that.",
    "这个模型只认 {width} × {height} 像素的图，照片已裁剪、缩放到这个大小。",
  ],
  "model.whole": [
    "Each of its tokens reaches far, so the whole picture is decoded after each stroke.",
    "它的每个 token 影响范围很大，所以每涂一笔都要重新解码整张图。",
  ],

  "repaint.title": ["Repaint the tokens", "动手改 token"],
  "repaint.do": [
    "Pick a code below, or from the picture, and paint it over the tokens. The decoder follows at once.",
    "在下面或图里挑一个码字，涂到 token 上，画面立刻跟着变。",
  ],
  tool: ["what the brush does", "画笔做什么"],
  "tool.paint": ["paint a code", "涂码字"],
  "tool.pick": ["pick a code", "取码字"],
  "tool.stamp": ["stamp the second photo", "盖第二张的 token"],
  "tool.rectangle": ["swap a rectangle", "对换一块"],
  "help.paint": [
    "Drag over the tokens or the picture. Keyboard: arrow keys, then the space key.",
    "在 token 或图上拖动即可。键盘：方向键移动，空格键涂。",
  ],
  "help.pick": [
    "Press a place of the picture: its code becomes the one you paint with. Keyboard: Enter, at any time.",
    "点图上一处，就改用那里的码字。键盘：随时按回车键。",
  ],
  "help.stamp": [
    "Drag: the tokens of the second photo come to the same place.",
    "拖到哪里，第二张在同一处的 token 就盖到哪里。",
  ],
  "help.rectangle": [
    "Drag from corner to corner: both photos exchange their tokens there. Keyboard: the space key at each corner.",
    "从一角拖到对角，两张照片就在这一块对换 token。键盘：在两个角各按一次空格键。",
  ],
  brush: ["brush, tokens wide", "画笔宽度（token）"],
  level: ["level", "层"],
  "level.number": ["1", "1"],
  palette: ["The codes", "码字"],
  "palette.say": [
    "Each square is what the decoder draws from nothing but this code; the bar is its colour in the grid, × counts its tokens here.",
    "每个小图是只用这一个码字时解码器画出的样子；色条是它在网格里的颜色，× 后面是它在此图中的个数。",
  ],
  "palette.code": ["code {code}, {times} tokens", "码字 {code}，{times} 个 token"],
  chosen: ["painting with {code}", "正在用 {code}"],
  undo: ["Undo", "撤销"],
  reset: ["All as it was", "全部复原"],

  "pair.title": ["Two photos exchange tokens", "两张照片换 token"],
  "pair.say": [
    "Take a second photo; it is cut to the size of the first. Then stamp its tokens with the brush, swap a rectangle, or swap everything.",
    "再选一张照片，它会裁成第一张的大小。然后用画笔把它的 token 盖过来，对换一块，或者全部对换。",
  ],
  swapAll: ["Swap everything", "全部对换"],

  "keep.title": ["Keep it", "存下来"],
  "keep.say": [
    "The picture as a PNG, or its tokens as a JSON file with the fingerprint of the model that can read them.",
    "可以存成 PNG 图片；也可以把 token 存成 JSON，里面记着模型的指纹，好知道该用哪个模型来读。",
  ],
  "keep.picture": ["Save the picture", "保存图片"],
  "keep.tokens": ["Save the tokens", "保存 token"],

  "compare.title": ["What more codes buy", "码字多了，换来什么"],
  "compare.say": [
    "Each model that you have slid to stays in this table, with your strokes. PSNR is the error on a logarithmic scale: 6 dB more halves the usual error of a pixel.",
    "拖动 K 看过的模型都留在表里，涂过的也算。PSNR 是取了对数的误差：高 6 dB，像素的平均误差大约减半。",
  ],
  "table.codes": ["K", "K"],
  "table.error": ["error", "均方误差"],
  "table.psnr": ["PSNR", "PSNR"],
  "table.bits": ["bits", "比特"],
  "table.perplexity": ["perplexity", "困惑度"],
  "table.used": ["in use", "用上的"],
};
