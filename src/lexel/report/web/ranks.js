// How often each code is used, by rank.

function showRanks(codebook) {
  const { count: counts, total } = codebook.codes;
  const settings = {
    x: counts.map((_, i) => i + 1),
    y: counts.map((n) => n / total || null),
    xName: "rank",
    format: (value) => `${+(100 * value).toPrecision(2)} %`,
    logY: true,
    most: 1,
    area: true,
  };
  new Chart(byId("ranks"), settings, []);
}
