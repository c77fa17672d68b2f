// Every text of the page, [English, 简体中文]. Each language is written for its own readers; neither translates the other.

export const strings = {
  title: ["A codebook in the plane", "平面上的码本"],
  overline: ["Lexel · vector quantization by hand", "Lexel · 动手看懂向量量化"],
  lede: [
    "Vector quantization replaces every vector by the nearest entry of a short list, and the list is learned: this is how pictures, speech and music become tokens that a language model can read. Here a vector is two numbers, a point in the plane, so you can watch each part at work and move it yourself.",
    "向量量化要做的事不复杂：手边有一张不长的表，来一个向量，就换成表里离它最近的那一项。真正有意思的是，这张表是学出来的。图像、语音、音乐，都是这样变成语言模型读得懂的 token 的。这里的向量只有两个数，正好是平面上的一个点，谁在动、为什么动，都看得见，也都可以亲手试。",
  ],
  hands: [
    "<b>Small dots</b> are inputs: what an encoder hands over. <b>Discs</b> are codes: the list. A second network, the decoder, gets the code in place of the input. Drag both, or reach them with the Tab key and move them with the arrow keys; where there are many, Page Up and Page Down go from one to the next.",
    "<b>小点</b>是输入，由一个叫编码器的网络送来；<b>圆片</b>是码字，合起来就是码本。另一个网络叫解码器，拿到的不是输入，而是换上的码字。小点和圆片都能拖；用键盘的话，Tab 键选中，方向键移动，点多的时候用 Page Up、Page Down 换一个。",
  ],
  footer: [
    'Every number here is computed in float32 by code whose results are tested against <a href="../../README.md">Lexel</a>’s own. The module on four vectors: <a href="statements.html">statement by statement</a>. The whole story in words: <a href="../vector-quantizer.md">The vector quantizer, step by step</a>.',
    '页面上的每个数都由 float32 算出，算法逐项与 <a href="../../README.zh-CN.md">Lexel</a> 对照测试过。想看模块怎样处理四个向量：<a href="statements.html">《逐行看懂这个模块》</a>；完整的来龙去脉，请读<a href="../vector-quantizer.zh-CN.md">《一步步看懂向量量化器》</a>。',
  ],
  "statements.title": ["The module, statement by statement", "逐行看懂这个模块"],
  "forward.title": ["Four vectors go through it", "四个向量走一遍"],
  "statements.lede": [
    "The classic vector quantizer takes fourteen steps. Here each of them works on the same four vectors and three codes: what it makes stands below it, and the picture shows what that means.",
    "经典的向量量化模块，从头到尾不过十四步。这里用同样的四个向量、三个码字，一步一步地走：算出什么，写在语句下面；是什么意思，看图就明白。",
  ],
  "statements.footer": [
    'Every number here is computed in float32 by code whose results are tested against <a href="../../README.md">Lexel</a>’s own, and the statements are run by the tests as they stand. The play itself: <a href="index.html">A codebook in the plane</a>.',
    '页面上的每个数都由 float32 算出，并与 <a href="../../README.zh-CN.md">Lexel</a> 对照测试过；列出的语句，测试里也原样执行。想继续动手，请看<a href="index.html">《平面上的码本》</a>。',
  ],
  run: ["Run", "运行"],
  pause: ["Pause", "暂停"],
  step: ["Step", "走一步"],
  back: ["Back", "退一步"],
  again: ["Start again", "从头来"],
  steps: ["steps", "步数"],
  perplexity: ["perplexity", "困惑度"],
  used: ["codes in use", "用上的码字"],
  error: ["mean squared error", "均方误差"],
  beta: ["β, the weight of the commitment", "β：承诺损失的权重"],
  decay: ["decay γ", "衰减率 γ"],
  rate: ["learning rate", "学习率"],
  K: ["K, how many codes", "K：码字个数"],
  "handle.code": ["code {i} at {x}, {y}", "码字 {i}，位于 {x}, {y}"],
  "handle.input": ["input {i} at {x}, {y}", "输入 {i}，位于 {x}, {y}"],

  "nearest.title": ["The nearest code", "离谁最近，就归谁"],
  "nearest.say": [
    "An input takes the code that is nearest to it, so the codes divide the plane into cells; inside a cell nothing changes, and at the border the choice jumps.",
    "每个输入都归离它最近的码字，整个平面就这样被分成一格一格。在格子里怎么挪，结果都不变；一越过边界，结果突然跳到另一个码字。",
  ],
  "nearest.do": ["Drag the dot slowly across a border.", "拖着小点，慢慢越过一条边界。"],
  "nearest.picture": ["One input and five codes with their cells", "一个输入，五个码字和它们的格子"],
  "nearest.index": ["index", "索引"],
  "nearest.distance": ["squared distance to it", "到它的平方距离"],
  "nearest.next": ["to the next nearest", "到第二近的"],

  "straight.title": ["A gradient for a choice", "借来的梯度"],
  "straight.say": [
    "A choice has no gradient, so straight-through takes the arrow that the decoder draws at the code and uses it at the input, as if both were one point; the farther apart they are, the bigger the lie.",
    "“挑一个码字”这个动作求不出梯度。直通估计的办法是：解码器在码字处给出的箭头，原样搬到输入处用，只当两点是同一点。离得越远，谎撒得越大。",
  ],
  "straight.do": [
    "Drag the dot away from its code. The dashed arrow is what the decoder would have said at the dot itself.",
    "把小点从它的码字旁边拖开。虚线箭头，是解码器若真看到这个点会给出的方向。",
  ],
  "straight.picture": [
    "An input, its code, and the arrows of gradient descent at both",
    "输入、它的码字，以及两处的下降方向",
  ],
  "straight.wish": ["where the decoder wants the output", "解码器希望输出在这里"],
  "straight.origin": ["origin", "原点"],
  "straight.estimator": ["The arrow at the input", "输入处的箭头"],
  "straight.copy": ["straight-through", "直通估计"],
  "straight.rotation": ["rotation trick", "旋转技巧"],
  "straight.atCode": ["gradient at the code", "码字处的梯度"],
  "straight.atInput": ["what the input gets", "输入得到的梯度"],
  "straight.own": ["what would be true there", "那里真正的梯度"],
  "straight.lie": ["the lie: how far they are apart", "谎有多大：两者之差"],

  "springs.title": ["Two losses, two springs", "两个损失，两根弹簧"],
  "springs.say": [
    "Both losses measure the same gap, like two springs of one length; but each is nailed down at the other end, so the codebook loss pulls only the code, and the commitment loss, β times as strong, only the input.",
    "两个损失量的是同一段距离，好比两根一样长的弹簧；不同的是，各有一头钉死。码本损失钉住输入，只拉码字；承诺损失钉住码字，只拉输入，力气是前者的 β 倍。",
  ],
  "springs.do": [
    "Run it. Then let the decoder tug at the input, and leave out one loss, then the other.",
    "先运行一遍。再让解码器来拽输入，然后轮流去掉一个损失试试。",
  ],
  "springs.tug": ["the decoder tugs at the input, now here, now there", "解码器不停地拽输入，一会儿这边，一会儿那边"],
  "springs.picture": [
    "An input and its code, with a spring for each loss",
    "输入与码字，之间有两根弹簧，各代表一个损失",
  ],
  "springs.withCodebook": ["codebook loss (moves the code)", "码本损失（拉码字）"],
  "springs.withCommitment": ["commitment loss (moves the input)", "承诺损失（拉输入）"],
  "springs.codebook": ["codebook loss", "码本损失"],
  "springs.commitment": ["commitment loss", "承诺损失"],
  "springs.codePath": ["the code has moved", "码字走了"],
  "springs.inputPath": ["the input has moved", "输入走了"],

  "swapped.title": ["Two statements swapped", "两行写反了"],
  "swapped.say": [
    "If the straight-through line comes before the losses, <code>e</code> is no longer the codebook’s: the codes never move, and the inputs flee from them.",
    "如果直通那一行写在了损失前面，<code>e</code> 就不再是码本里的那一行了：码字从此一动不动，输入反而往外逃。",
  ],
  "swapped.do": [
    "Run it; then choose the swapped order and run it again. Step goes line by line.",
    "先按正确的顺序运行；再换成写反的顺序，重新运行。“走一步”每次执行一行。",
  ],
  "swapped.picture": ["Eight inputs and three codes", "八个输入，三个码字"],
  "swapped.order": ["Order of the statements", "语句的顺序"],
  "swapped.right": ["right", "正确"],
  "swapped.wrong": ["swapped", "写反"],
  "swapped.codebook": ["codebook.grad, its length", "codebook.grad 的长度"],
  "swapped.inputs": ["z.grad, its length", "z.grad 的长度"],

  "averages.title": ["A moving average", "滑动平均"],
  "averages.say": [
    "With EMA no gradient moves a code: it follows the mean of the inputs that chose it, which with γ = 0 is one step of k-means; the higher γ, the longer it remembers, and the smaller its steps.",
    "用 EMA 时，码字不靠梯度移动，而是跟着选中它的输入的平均值走。γ = 0 时，一步就是一轮 k-means；γ 越大，过去记得越久，每一步也就越小。",
  ],
  "averages.do": [
    "Step with γ = 0: each code jumps into its ring. Then start again with γ = 0.9 and small batches.",
    "γ = 0 时走一步，码字正好跳进圆圈。再把 γ 调到 0.9、换成小批量，从头来。",
  ],
  "averages.picture": [
    "Inputs in five groups, three codes and the paths they took",
    "五群输入，三个码字和它们走过的路",
  ],
  "averages.whole": ["every step sees all inputs", "每一步都看全部输入"],
  "averages.kmeans": ["farthest from its mean", "离均值最远的码字差多少"],
  "averages.memory": [
    "What each of the last thirty batches weighs; the newest is on the right.",
    "最近三十批各占多少分量，最右边是最新的一批。",
  ],

  "collapse.title": ["Collapse", "码本坍缩"],
  "collapse.say": [
    "Only a code that is chosen learns, so after a bad start a few codes take everything and the rest are dead; the perplexity says how many codes, all used equally often, would be as varied as those in use.",
    "只有被选中的码字才会学习。开局不好，少数几个码字就把输入全占了，其余的再没有机会，成了死码。困惑度说的是：这样的用法，相当于多少个码字在平均分担。",
  ],
  "collapse.do": [
    "Send all codes into the corner, run, and watch who moves. Then switch revival on, or start by k-means.",
    "把码字全赶到角落，运行，看看还有谁在动。然后打开“复活”，或改用 k-means 起步。",
  ],
  "collapse.picture": [
    "Two moons of inputs and sixteen codes; dead codes are hollow",
    "两弯月牙形的输入和十六个码字；空心的是死码",
  ],
  "collapse.revival": ["revival: a dead code is put on an input", "复活：把死码放到某个输入上"],
  "collapse.corner": ["All codes into the corner", "全部赶到角落"],
  "collapse.kmeans": ["k-means start", "用 k-means 起步"],
  "collapse.limit": ["K = {K}", "K = {K}"],
  "collapse.curve": ["Perplexity over the steps", "困惑度随步数的变化"],

  "cost.title": ["What it costs", "代价"],
  "cost.say": [
    "The expanded distance ‖z‖² + ‖e‖² − 2⟨z, e⟩ is one matrix product for all pairs; but far from the origin it subtracts two huge numbers, and float32 drops the small difference that decides.",
    "把距离展开成 ‖z‖² + ‖e‖² − 2⟨z, e⟩，一次矩阵乘法就能算完所有配对。可一旦远离原点，就成了两个大数相减，真正起决定作用的那点差别，float32 记不住。",
  ],
  "cost.do": [
    "Move everything away from the origin: ringed dots have got a wrong code, though no distance has changed.",
    "让整团点远离原点：距离一点没变，画圈的点却选错了码字。",
  ],
  "cost.picture": ["Inputs coloured by the code that the expanded distance picks", "输入按展开式选出的码字着色"],
  "cost.shift": ["distance from the origin", "离原点多远"],
  "cost.exact": ["show the exact choice, as Lexel makes it", "显示精确的选择（Lexel 的做法）"],
  "cost.wrong": ["wrong by the expanded distance", "展开式选错"],
  "cost.exactWrong": ["wrong by Lexel's search", "Lexel 选错"],
  "cost.table": ["And the table of all distances", "还有那张距离表"],
  "cost.N": ["N, inputs", "N：输入个数"],
  "cost.matrix": [
    "N × K distances in float32 weigh <b>{weight}</b>. Of each row only one index is kept: {least}. Lexel never makes the table.",
    "N × K 个 float32 距离要占 <b>{weight}</b>；而每一行最后只留一个索引，合计 {least}。Lexel 从头到尾都不建这张表。",
  ],
  "cost.K": ["K, codes", "K：码字个数"],

  "playground.title": ["All of it together", "全都放在一起"],
  "playground.say": [
    "A code follows the inputs that chose it, by gradient or by EMA; one that nobody chooses stays where it is, unless revival puts it on an input. An input is pulled to its code, β times as hard. Set all of this here, and move anything while it runs.",
    "码字跟着选中它的输入走，靠梯度或靠 EMA；没人选的码字待在原地，除非“复活”把它放到某个输入上。输入则被拉向自己的码字，力气是 β 倍。这些都可以在这里调，运行途中也能随手拖动。",
  ],
  "playground.do": ["Run it. Then choose “painted”, draw something, and see what sixteen codes make of it.", "先运行一遍。再选“自己画”，随便画点什么，看十六个码字怎么分。"],
  "playground.picture": ["Inputs and codes; dead codes are hollow", "输入与码字；空心的是死码"],
  "playground.source": ["Inputs", "输入"],
  "source.blobs": ["blobs", "几团"],
  "source.ring": ["ring", "圆环"],
  "source.moons": ["two moons", "双月"],
  "source.image": ["colours of an image", "图像的颜色"],
  "source.painted": ["painted", "自己画"],
  "empty.image": ["Choose an image, or drop one here.", "选一张图，或直接拖到这里。"],
  "empty.painted": ["Draw here.", "在这里画。"],
  "image.choose": ["Choose an image; it stays on this machine", "选择图像（不会离开这台机器）"],
  "image.none": ["That file is no image that this browser can read.", "这个文件不是浏览器能读的图像。"],
  "image.large": ["That file is larger than 40 MB; choose a smaller image.", "文件超过 40 MB，请换一张小一点的图。"],
  "playground.clear": ["Clear", "擦掉"],
  "playground.learning": ["Codes learn by", "码字怎样学习"],
  "learning.gradient": ["gradient", "梯度"],
  "learning.ema": ["EMA", "EMA"],
  "playground.batch": ["batch", "批量大小"],
  "playground.free": ["inputs move too, as an encoder's do", "输入也会动，像编码器的输出那样"],
  "playground.kmeans": ["Put codes by k-means", "用 k-means 摆放码字"],
  "playground.loss": ["loss", "损失"],

  "forward.say": [
    "The inputs are one tiny picture with two channels and 2 × 2 positions: four vectors, which stay the same from the first statement to the last.",
    "输入是一张小小的图：两个通道，2 × 2 个位置，也就是四个向量。从第一条语句到最后一条，用的都是它们。",
  ],
  "forward.do": [
    "Go through the statements; drag any dot or disc and see every number follow.",
    "一条一条往下走；随手拖动小点或圆片，数字会立刻跟着变。",
  ],
  "statements.picture": ["Four vectors and three codes", "四个向量，三个码字"],
  "statements.before": ["Previous", "上一条"],
  "statements.after": ["Next", "下一条"],
  "statement.codebook": [
    "A table of K = 3 codes with two numbers each. They start uniform in [−1/K, 1/K], the small square: usually a cramped place compared with where inputs lie.",
    "一张表，K = 3 个码字，每个两个数。开始时在 [−1/K, 1/K] 里均匀取值，就是图中的小方框；同输入散布的范围比起来，往往挤得很。",
  ],
  "statement.permute": [
    "Channels first becomes channels last. No number changes; what belongs together now lies together. Below are the two channels as they came: each vector takes one number from either.",
    "把通道从前面挪到最后。数一个没变，只是让同一个向量的分量挨在一起。下面是原来的两个通道：每个向量从两边各取一个数。",
  ],
  "statement.view": [
    "All positions in one list: one row is one vector. From here on, nobody asks where in the picture it stood.",
    "所有位置排成一列，一行就是一个向量。从这里起，它在图上哪个位置，已经无关紧要。",
  ],
  "statement.distances": [
    "‖z‖² + ‖e‖² − 2⟨z, e⟩, for all four vectors and all three codes at once: one number for each thread.",
    "‖z‖² + ‖e‖² − 2⟨z, e⟩，四个向量对三个码字，一次算完；图上每条细线对应一个数。",
  ],
  "statement.argmin": [
    "The smallest entry of each row: the index of the nearest code. No gradient passes here; a choice has none.",
    "每一行取最小值的位置，就是最近码字的索引。梯度到这里就断了：选择是不可导的。",
  ],
  "statement.onehot": [
    "The same choice as a row of zeros with a single one. Its columns will tell how often each code was taken.",
    "同样的选择，换个写法：一行零里放一个一。竖着看，就是每个码字被选了几次。",
  ],
  "statement.quantized": [
    "The product with the codebook picks one row of it for each vector. <code>quantized</code> is now made of codes, and autograd knows that they came from the codebook.",
    "和码本一乘，每个向量就取到了自己那一行。这时的 <code>quantized</code> 由码字组成，autograd 也记得它来自码本。",
  ],
  "statement.commitment": [
    "The mean squared gap with the codes held fast: it pulls the inputs, and so the encoder, towards their codes.",
    "均方距离，码字这一头钉死：被拉动的是输入，也就是编码器，让它朝自己的码字靠。",
  ],
  "statement.codebookLoss": [
    "The same number with the inputs held fast: it pulls each code towards the inputs that chose it. This is the loss that trains the codebook.",
    "数值一模一样，换成输入这一头钉死：被拉动的是码字，朝选中它的输入靠。训练码本的，正是这个损失。",
  ],
  "statement.loss": [
    "Both, with β = 0.25 for the commitment. The arrows are a step against its gradient: long for the codes, a quarter as strong for each input.",
    "两者相加，承诺损失乘 β = 0.25。箭头是沿负梯度走的一步：码字走得多，每个输入只有四分之一的力气。",
  ],
  "statement.through": [
    "A new tensor under the old name: the value is still the code, but the gradient goes to <code>z</code>. The dashed arrows are what some decoder asks for at the codes; each arrives unchanged at its input. The losses above keep what they were made of.",
    "旧名字，新张量：值还是码字，梯度却直接交给 <code>z</code>。虚线箭头是某个解码器在码字处的要求，原封不动地到了各自的输入。上面的两个损失早已算好，不受影响。",
  ],
  "statement.usage": [
    "The mean of each column: the share of vectors that took each code.",
    "每一列求平均：各有多大比例的向量选了这个码字。",
  ],
  "statement.perplexity": [
    "The exponential of the entropy of these shares: 1 if one code takes all, 3 if all three are used alike.",
    "这些比例的熵，取指数：一个码字包揽时是 1，三个码字用得一样多时是 3。",
  ],
  "statement.output": [
    "Channels first again, as the decoder expects. It sees codes and nothing but codes.",
    "通道再挪回前面，交给解码器。解码器看到的全是码字，没有别的。",
  ],

  "orders.title": ["The puzzle: does q_latent_loss move the codebook?", "悬案：q_latent_loss 到底动不动码本？"],
  "orders.say": [
    "An explanation that circulates says no: the straight-through statement is supposed to divert its gradient to the inputs. Whether that is so depends on which statement comes first.",
    "流传的一种讲法说不动：直通那一行会把它的梯度引到输入上去。究竟是不是，要看哪一条语句在前。",
  ],
  "orders.do": ["Say what you expect. Then run both.", "先猜一猜，再把两种顺序都跑一遍。"],
  "orders.first": ["The losses first, as in the module", "先算损失（模块的写法）"],
  "orders.last": ["Straight-through first", "先直通，后算损失"],
  "orders.run": ["Run sixteen steps", "跑十六步"],
  "orders.verdict": [
    "Losses first: the codes moved by <b>{codes}</b> on average, and the mean gap went from {before} to <b>{gap}</b>. So q_latent_loss does move the codebook, and nothing else does. Straight-through first: the codes moved by <b>{still}</b>, and the gap grew to <b>{flight}</b>: the name <code>quantized</code> meant another tensor by then, so the loss pushed the inputs away from their codes.",
    "先算损失：码字平均移动了 <b>{codes}</b>，平均差距从 {before} 缩到 <b>{gap}</b>。可见 q_latent_loss 确实在动码本，而且只有它在动。先直通：码字移动了 <b>{still}</b>，差距反而拉大到 <b>{flight}</b>。因为这时 <code>quantized</code> 这个名字指的已经是另一个张量，损失推着输入离开各自的码字。",
  ],
};
