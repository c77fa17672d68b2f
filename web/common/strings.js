// The texts that all pages have, [English, 简体中文].

export const common = {
  "other-language": ["中文", "English"],
  theme: ["◐", "◐"],
  "theme.label": ["Light or dark", "切换明暗"],
};
