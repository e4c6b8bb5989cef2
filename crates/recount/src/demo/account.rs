//! What must become of the orders, worked out by hand: no line of Recount's own is used here.

use super::data::Order;
use std::collections::HashMap;

/// What must become of one order that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// So many units leave the stock.
    Applied(i64),
    /// It asks for nothing.
    ZeroQuantity,
    /// The list doesn't have the article.
    UnknownSku,
    /// Less is on hand than it asks for.
    InsufficientStock,
}

impl Fate {
    /// Units that leave the stock.
    pub fn units(&self) -> i64 {
        match self {
            Self::Applied(units) => *units,
            _ => 0,
        }
    }

    /// The reason that the demo's configs have for it.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Applied(_) => None,
            Self::ZeroQuantity => Some("zero_quantity"),
            Self::UnknownSku => Some("unknown_sku"),
            Self::InsufficientStock => Some("insufficient_stock"),
        }
    }
}

/// The fate of each order, and the stock afterwards.
pub struct Account {
    /// In the orders' order.
    pub fates: Vec<Fate>,
    /// Units on hand afterwards, by article.
    pub on_hand: HashMap<String, i64>,
}

impl Account {
    /// Takes one order after the other out of the stock.
    pub fn of(orders: &[Order], stock: &[(String, i64)]) -> Self {
        let mut on_hand: HashMap<String, i64> = stock.iter().cloned().collect();
        let fates = orders.iter().map(|order| take(&mut on_hand, order)).collect();
        Self { fates, on_hand }
    }

    /// Units that left the stock.
    pub fn units(&self) -> i64 {
        self.fates.iter().map(Fate::units).sum()
    }

    /// How many have this fate's reason.
    pub fn count(&self, reason: Option<&str>) -> usize {
        self.fates.iter().filter(|fate| fate.reason() == reason).count()
    }

    /// A budget in percent of 1,000 that these orders keep with room to spare: what somebody would declare
    /// who had looked at them. At least `least`.
    pub fn percent_for(&self, reason: &str, least: usize) -> usize {
        let has = |fate: &Fate| usize::from(fate.reason() == Some(reason));
        let (mut now, mut worst) = (0, 0);
        for (n, fate) in self.fates.iter().enumerate() {
            now += has(fate);
            now -= n.checked_sub(1000).map_or(0, |gone| has(&self.fates[gone]));
            worst = worst.max(now);
        }
        if worst <= least * 10 { least } else { (worst.div_ceil(10) + 1).min(100) }
    }
}

fn take(on_hand: &mut HashMap<String, i64>, order: &Order) -> Fate {
    if order.quantity == 0 {
        return Fate::ZeroQuantity;
    }
    match on_hand.get_mut(&order.sku) {
        None => Fate::UnknownSku,
        Some(units) if *units < order.quantity => Fate::InsufficientStock,
        Some(units) => {
            *units -= order.quantity;
            Fate::Applied(order.quantity)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_has_the_fate_that_the_stock_before_it_gives() {
        let order = |sku: &str, quantity| Order {
            line: String::new(),
            id: String::new(),
            sku: sku.to_owned(),
            quantity,
        };
        let orders = [order("a", 6), order("a", 0), order("b", 1), order("a", 5), order("a", 4)];
        let account = Account::of(&orders, &[("a".to_owned(), 10)]);
        let expected = [
            Fate::Applied(6),
            Fate::ZeroQuantity,
            Fate::UnknownSku,
            Fate::InsufficientStock,
            Fate::Applied(4),
        ];
        assert_eq!(account.fates, expected);
        assert_eq!((account.units(), account.on_hand["a"]), (10, 0));
    }

    #[test]
    fn a_budget_has_room_for_the_worst_window() {
        let fates = |zeros| {
            let mut fates = vec![Fate::Applied(1); 3000];
            fates[..zeros].fill(Fate::ZeroQuantity);
            Account { fates, on_hand: HashMap::new() }.percent_for("zero_quantity", 2)
        };
        assert_eq!([0, 20, 21, 31].map(fates), [2, 2, 4, 5]);
    }
}
