//! Figures as a picture: lines over a logarithmic number of prefixes.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

/// Wide enough for a page of GitHub.
const SIZE: (u32, u32) = (800, 450);

/// One picture.
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What is from left to right.
    pub(crate) across: String,
    /// What is from bottom to top.
    pub(crate) up: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of it.
pub(crate) struct Line {
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// Writes it as SVG.
    ///
    /// # Errors
    /// There is nothing to draw, or the file can't be written.
    pub(crate) fn draw(&self, path: &Path) -> Result<()> {
        self.try_draw(path).with_context(|| format!("draw {}", path.display()))
    }

    fn try_draw(&self, path: &Path) -> Result<()> {
        let points = || self.lines.iter().flat_map(|line| &line.points).copied();
        let most = |of: fn(&(f64, f64)) -> f64| points().map(|point| of(&point)).fold(f64::NAN, f64::max);
        let (left, right, top) = (
            points().map(|point| point.0).fold(f64::NAN, f64::min),
            most(|point| point.0),
            most(|point| point.1),
        );
        anyhow::ensure!(left > 0.0 && left < right && top > 0.0, "no points");

        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 20))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d((left..right).log_scale(), 0.0..top * 1.1)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .x_desc(&self.across)
            .y_desc(&self.up)
            .x_label_formatter(&|prefixes| format!("{prefixes:.0}"))
            .y_label_formatter(&|figure| format!("{figure:.0}"))
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(drawing)?;
        for (n, line) in self.lines.iter().enumerate() {
            let colour = Palette99::pick(n).to_rgba();
            let dots = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
            chart.draw_series(dots).map_err(drawing)?;
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))
                .map_err(drawing)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(drawing)?;
        root.present().map_err(drawing)
    }
}

fn drawing<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("{error}")
}
