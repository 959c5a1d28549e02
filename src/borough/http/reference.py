def page(d): return ""
