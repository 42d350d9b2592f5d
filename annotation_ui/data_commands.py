"""The commands that bring data in and out: import, export, simulate."""

from __future__ import annotations

from alignment.errors import UserError
from annotation_ui.export import ExportFilter, export, filter_from, manifest_file
from annotation_ui.generation import Generator
from annotation_ui.importing import Filing, attention_items, import_items, read_pairs, read_prompts
from annotation_ui.items import project_named
from annotation_ui.loading import load_variants
from annotation_ui.opening import Arguments, known_store, open_store, say
from annotation_ui.settings import AppSettings


def import_data(settings: AppSettings, arguments: Arguments) -> None:
    """Bring prompts, or pairs to be judged, into a project's queue."""
    store = open_store(settings, arguments.run)
    with store.read() as connection:
        project = project_named(connection, arguments.project)
    filing = Filing(part=arguments.part, batch=arguments.batch, priority=arguments.priority)
    read = read_pairs if arguments.pairs else read_prompts
    try:
        items, report = read(
            arguments.source,
            project.dimension,
            filing=filing,
            format=arguments.format,
            on_error=arguments.on_error,
            limit=arguments.limit,
        )
    except UserError as error:  # the readers are those of the stages, where this is a setting
        raise UserError(str(error).replace("data.on_error=skip", "--on-error skip")) from error
    if arguments.attention:
        items += attention_items(project.dimension, filing=filing)
    done = import_items(store, arguments.project, items, overlap=arguments.overlap)
    say(f"{arguments.project}: {done.added} added, {done.known} there already. {report.summary()}")


def export_data(settings: AppSettings, arguments: Arguments) -> None:
    """Write what was judged as comparison records for stages.reward."""
    chosen = {key: getattr(arguments, key) for key in ExportFilter.model_fields if hasattr(arguments, key)}
    if settings.qualification.required:
        chosen["require_qualified"] = True
    made = export(known_store(settings, arguments.run), arguments.to, filter_from(chosen))
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items() if count)
    say(f"wrote {made.n} comparisons to {arguments.to} (left out: {left_out or 'none'}); {manifest_file(arguments.to)}")


def simulate_people(settings: AppSettings, arguments: Arguments) -> None:
    """Have the toy world's annotators judge the queue, through the app's own desk."""
    from annotation_ui.simulate import simulate, toy_pairs

    store = open_store(settings, arguments.run)
    names = arguments.project or [project.name for project in settings.projects]
    if arguments.pairs_only:
        settings = settings.model_copy(update={"variants": None})
        for project in settings.projects:
            import_items(store, project.name, toy_pairs(arguments.count, project.dimension, seed=arguments.seed))
    variants = load_variants(settings, arguments.run)
    generator = None if variants is None else Generator(variants)
    try:
        for name in names:
            done = simulate(
                store,
                settings,
                name,
                count=arguments.count,
                annotators=arguments.annotator or (),
                seed=arguments.seed,
                generator=generator,
            )
            say(f"{name}: {done.n} judged, {done.skipped} skipped, {done.per_second:.0f} a second")
    finally:
        if generator is not None:
            generator.close()
