# Every box of a flow counted again from the dispositions of a release: Rscript count_flow.R FOLDER prints what differs.
folder <- commandArgs(trailingOnly = TRUE)[1]
read <- function(name) read.csv(file.path(folder, name), colClasses = "character", na.strings = NULL, encoding = "UTF-8")
people <- read("data/dispositions.csv")
boxes <- read("flow.csv")
steps <- c("assessed", "approached", "agreed", "consented", "entered")
out <- c("not_eligible", "declined", "lost", "died", "excluded")
lost <- c("lost", "died", "missed", "not_answered", "no_anchor")
reason_of <- c(
  standing = "left_reason", treatment = "treatment_reason", follow_up = "follow_up_reason",
  not_analysed = "not_analysed", not_received = "treatment_reason"
)
plain <- c("allocated", "lost", "analysed", "received", "not_received", "not_analysed")
entered <- people$reached == "entered"
told <- function(reason) if (reason == "not_recorded") "" else reason

held_in <- function(box, wave) {
  parts <- strsplit(box, ".", fixed = TRUE)[[1]]
  name <- parts[1]
  code <- if (length(parts) > 1) parts[2] else ""
  why <- if (length(parts) > 2) paste(parts[-(1:2)], collapse = ".") else ""
  if (name %in% steps) {
    if (code == "") return(people$reached %in% steps[match(name, steps):length(steps)])
    held <- people$reached == name & (if (code == "out") people$entry %in% out else people$entry == code)
    return(if (why == "") held else held & people$entry_reason == told(why))
  }
  if (name == "wave") {
    outcome <- substring(box, nchar(paste0("wave.", wave, ".")) + 1)
    return(entered & people[[paste0("outcome_", wave)]] == outcome)
  }
  held <- entered & switch(name,
    allocated = TRUE,
    lost = people$follow_up %in% lost,
    analysed = people$analysed == "1",
    received = people$received == "1",
    not_received = people$received != "1",
    not_analysed = people$follow_up == "followed_up" & people$analysed != "1",
    people[[name]] == code
  )
  reason <- if (name %in% plain) code else why
  if (reason == "") held else held & people[[reason_of[name]]] == told(reason)
}

differs <- 0
for (row in seq_len(nrow(boxes))) {
  held <- held_in(boxes$box[row], boxes$reason[row])
  own <- people[held & (boxes$group[row] == "all" | people$arm == boxes$group[row]), ]
  found <- c(nrow(own), length(unique(own$site)))
  if (any(found != as.integer(c(boxes$n[row], boxes$n_sites[row])))) {
    differs <- differs + 1
    cat(boxes$box[row], boxes$group[row], found, "\n")
  }
}
cat(nrow(boxes), "boxes,", differs, "differ\n")
