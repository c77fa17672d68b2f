// Samples as they are drawn: a slider goes through the frames, and a button plays them.

{
  const { frames, drawn } = data.growing;
  const [slider, play] = [byId("step"), byId("play")];
  const last = frames.length - 1;
  let timer = null;

  const show = (i) => {
    slider.value = i;
    byId("frame").src = frames[i];
    byId("drawn").textContent = i === last ? `all ${counted(drawn[last], "token")}` : `${count(drawn[i])} of ${counted(drawn[last], "token")}`;
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };

  slider.addEventListener("input", () => {
    pause();
    show(+slider.value);
  });
  play.addEventListener("click", () => {
    if (timer) return pause();
    if (+slider.value === last) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      show(Math.min(+slider.value + 1, last));
      if (+slider.value === last) pause();
    }, 80);
  });
}
